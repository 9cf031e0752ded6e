"""Making and mending our endpoint at a provider. The one place where a command changes something there."""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

import click

from gapless.cli.listing import configured, fetching
from gapless.reconcile import health
from gapless.reconcile.fetch import Fetcher
from gapless.settings import Settings
from gapless_reconcilers.kit.contract import RegistersEndpoint, Registration, Secret, Subscription

OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An endpoint that was made, or was there already (`made` False)."""

    id: str | None
    made: bool


async def register(settings: Settings, name: str, url: str, types: tuple[str, ...], secret_file: Path) -> Registered:
    """Make an endpoint at `url` and keep its secret in `secret_file`, ahead of those that are there.

    The file is written to before anything is made: most vendors show the secret once. Raises
    `ProviderError`s, `click.UsageError` and `OSError`.
    """
    async with fetching(configured(settings, name), settings.public_url) as fetcher:
        provider = _registers(fetcher)
        there = await health.ask_subscription(fetcher, url)
        if there is not None and there.healthy:
            return Registered(id=there.id, made=False)
        known = _read(secret_file)
        ours = known[0] if known else secrets.token_urlsafe(32)
        _write(secret_file, known or [ours])
        wanted = types or settings_types(settings, name)
        response = await fetcher.send(provider.register_request(url, wanted, Secret(ours)))
        made = provider.read_registration(response)
        _write(secret_file, _with(made, ours, known))
        return Registered(id=made.id, made=True)


async def repair(settings: Settings, name: str, url: str) -> Subscription | None:
    """Switch our endpoint on again if it is off; how it stands now. Raises `ProviderError`s and `click.UsageError`."""
    async with fetching(configured(settings, name), settings.public_url) as fetcher:
        _registers(fetcher)
        await health.repair(fetcher, url)
        return await health.ask_subscription(fetcher, url)


def settings_types(settings: Settings, name: str) -> tuple[str, ...]:
    """The types that the configuration names; empty: all."""
    return configured(settings, name).types or ()


def _registers(fetcher: Fetcher) -> RegistersEndpoint:
    provider = fetcher.source.provider
    if not isinstance(provider, RegistersEndpoint):
        raise click.UsageError(f"provider {provider.kind!r} has no request for this; use the vendor's dashboard")
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
