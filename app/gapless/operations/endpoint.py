"""Registers and repairs our endpoint at a provider. No other operation changes anything there."""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from gapless.domain import Purpose
from gapless.operations.context import OperationRefused
from gapless.provider_api import health
from gapless.provider_api.client import ProviderClient
from gapless_reconcilers.kit.contract import RegistersEndpoint, Registration, Secret, Subscription

OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredEndpoint:
    """An endpoint that was created, or existed already (`made` False)."""

    id: str | None
    made: bool


async def register_endpoint(
    client: ProviderClient, url: str, types: tuple[str, ...], secret_file: Path
) -> RegisteredEndpoint:
    """Create an endpoint at `url` and write its secret to `secret_file`, before the secrets that are in it.

    Empty `types`: all types. The file is written before the endpoint is created, because most vendors show the secret
    only once.
    Raises `ProviderError`s, `OperationRefused` and `OSError`.
    """
    provider = _registrar(client)
    existing = await health.read_subscription(client, url)
    if existing is not None and existing.healthy:
        return RegisteredEndpoint(id=existing.id, made=False)
    known = _read_lines(secret_file)
    ours = known[0] if known else secrets.token_urlsafe(32)
    _write_lines(secret_file, known or [ours])
    response = await client.send(provider.register_request(url, types, Secret(ours)), Purpose.ENDPOINT)
    made = provider.read_registration(response)
    _write_lines(secret_file, _secrets(made, ours, known))
    return RegisteredEndpoint(id=made.id, made=True)


async def repair_endpoint(client: ProviderClient, url: str) -> Subscription | None:
    """Enable our endpoint if it is disabled, and return its state after that; None: unknown.

    Raises `ProviderError`s and `OperationRefused`.
    """
    _registrar(client)
    await health.repair_endpoint(client, url)
    return await health.read_subscription(client, url)


def _registrar(client: ProviderClient) -> RegistersEndpoint:
    provider = client.source.provider
    if not isinstance(provider, RegistersEndpoint):
        raise OperationRefused(f"provider {provider.kind!r} cannot do this by its API; use the vendor's dashboard")
    return provider


def _secrets(made: Registration, ours: str, known: list[str]) -> list[str]:
    first = ours if made.secret is None else made.secret.reveal()
    return [first, *(each for each in known if each != first)]


def _read_lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _write_lines(path: Path, lines: list[str]) -> None:
    """Replace the file atomically; only its owner may read it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
