"""Open the configured store. It imports no part of the daemon, so that commands which only read start quickly."""

from gapless.ledger.engine import Store, StoreLimits, open_store
from gapless.settings import Settings


def open_configured_store(settings: Settings) -> Store:
    """Return the configured store, with the configured limits. Raises `StoreInvalid`."""
    store = settings.store
    limits = StoreLimits(
        connect_within=store.connect_within, command_within=store.command_within, connections=store.connections
    )
    return open_store(store.url.read().reveal(), limits)
