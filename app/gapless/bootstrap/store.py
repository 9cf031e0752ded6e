"""Open the configured store. It imports no part of the daemon, so that commands which only read start quickly."""

from datetime import timedelta

from gapless.bootstrap.keys import make_keyring
from gapless.ledger import keyring
from gapless.ledger.engine import Store, StoreLimits, open_store
from gapless.sealing import Keyring
from gapless.settings import Settings

AT_ONCE = timedelta(0)


def open_configured_store(settings: Settings, ring: Keyring | None = None) -> Store:
    """Return the configured store, with the configured limits and keys; `ring` is those, if they were made before.

    Raises `StoreInvalid` and `SecretUnavailable`.
    """
    store = settings.store
    limits = StoreLimits(
        connect_within=store.connect_within, command_within=store.command_within, connections=store.connections
    )
    options = keyring.options(make_keyring(settings) if ring is None else ring)
    return open_store(store.url.read().reveal(), limits, options)


def start_patience(settings: Settings) -> timedelta:
    """Return how long a daemon waits for its store at the start. A file is there or it is not: zero for SQLite."""
    is_file = settings.store.url.read().reveal().startswith("sqlite")
    return AT_ONCE if is_file else settings.store.start_within
