"""Make the keys that seal payloads from the settings, and follow their file while the process runs."""

from gapless.ledger import Connection, sealed
from gapless.sealing import Keyring, SealingKey, compare
from gapless.settings import Settings, read_keys


class KeysRefused(Exception):
    """The keys that are configured now are not taken over. The message says why, and shows no key."""


def make_keyring(settings: Settings) -> Keyring:
    """Return the configured keys. Raises `SecretUnavailable`."""
    keys = read_keys(settings.encryption)
    return Keyring((SealingKey(key_id, secret) for key_id, secret in keys.items()), seals=settings.encryption.seals)


def take_over(connection: Connection, ring: Keyring, wanted: Keyring, now_us: int) -> None:
    """Use the keys of `wanted`, unless a row needs one that is not among them any more. Raises `KeysRefused`."""
    known, needed = sealed.fingerprints(connection), sealed.needed(connection)
    state = compare(wanted, known, needed)
    lost = sorted(set(state.unusable) - set(ring.state.unusable))
    if lost:
        raise KeysRefused(
            f"rows need the key {', '.join(lost)}, and it was removed or changed: put it back, or run "
            "`gapless keys rotate` before it is removed"
        )
    ring.replace(wanted)
    sealed.enter(connection, ring, now_us)


__all__ = ["KeysRefused", "make_keyring", "take_over"]
