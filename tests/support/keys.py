"""Keys that seal payloads, for tests."""

from gapless.ledger import keyring, sealed
from gapless.ledger.engine import Store, open_store
from gapless.sealing import Keyring, SealingKey

FIRST, SECOND = f"first:{'1f' * 32}", f"second:{'2e' * 32}"
"""Lines of a file of keys."""


def ring_of(*lines: str, seals: bool = True) -> Keyring:
    """Return the keys of these lines."""
    parts = [line.split(":") for line in lines]
    return Keyring((SealingKey(key_id, bytes.fromhex(key)) for key_id, key in parts), seals=seals)


async def open_sealed(url: str, *lines: str, seals: bool = True) -> Store:
    """Open a store with these keys, as a process does."""
    ring = ring_of(*lines, seals=seals)
    store = open_store(url, options=keyring.options(ring))
    await store.write(sealed.enter, ring=ring, now_us=1)
    return store
