"""Make the keys that seal payloads from the settings. Imports no tables: commands that only read start quickly."""

from gapless.sealing import Keyring, SealingKey
from gapless.settings import Settings, read_keys


def make_keyring(settings: Settings) -> Keyring:
    """Return the configured keys. Raises `SecretUnavailable`."""
    keys = read_keys(settings.encryption)
    return Keyring((SealingKey(key_id, secret) for key_id, secret in keys.items()), seals=settings.encryption.seals)
