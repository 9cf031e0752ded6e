"""Making and repairing our endpoint at a provider: the only operations that change something there."""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from gapless.operations.context import OperationRefused
from gapless.provider_api import health
from gapless.provider_api.client import ProviderClient
from gapless_reconcilers.kit.contract import RegistersEndpoint, Registration, Secret, Subscription

OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredEndpoint:
    """An endpoint that was made, or was there already (`made` False)."""

    id: str | None
    made: bool


async def register_endpoint(
    client: ProviderClient, url: str, types: tuple[str, ...], secret_file: Path
) -> RegisteredEndpoint:
    """Make an endpoint at `url` and keep its secret in `secret_file`, ahead of those that are there.

    No `types`: all of them. The file is written to before anything is made: most vendors show the secret once.
    Raises `ProviderError`s, `OperationRefused` and `OSError`.
    """
    provider = _registers(client)
    there = await health.read_subscription(client, url)
    if there is not None and there.healthy:
        return RegisteredEndpoint(id=there.id, made=False)
    known = _read(secret_file)
    ours = known[0] if known else secrets.token_urlsafe(32)
    _write(secret_file, known or [ours])
    response = await client.send(provider.register_request(url, types, Secret(ours)))
    made = provider.read_registration(response)
    _write(secret_file, _with(made, ours, known))
    return RegisteredEndpoint(id=made.id, made=True)


async def repair_endpoint(client: ProviderClient, url: str) -> Subscription | None:
    """Switch our endpoint on again if it is off, and return its state then; None: unknown.

    Raises `ProviderError`s and `OperationRefused`.
    """
    _registers(client)
    await health.repair_endpoint(client, url)
    return await health.read_subscription(client, url)


def _registers(client: ProviderClient) -> RegistersEndpoint:
    provider = client.source.provider
    if not isinstance(provider, RegistersEndpoint):
        raise OperationRefused(f"provider {provider.kind!r} has no request for this; use the vendor's dashboard")
    return provider


def _with(made: Registration, ours: str, known: list[str]) -> list[str]:
    first = ours if made.secret is None else made.secret.reveal()
    return [first, *(each for each in known if each != first)]


def _read(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _write(path: Path, lines: list[str]) -> None:
    """Replace the file at once; nobody but its owner may read it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
