"""Seals bytes with AES-256-GCM, so that who gets at the ledger alone cannot read them. Pure, but for random numbers.

A sealed value is: format (1 byte), owner (16), salt (16), nonce (12), ciphertext with its tag. The owner is a digest of
what the value belongs to. Owner, the id of the key and the *place* of the value (its row) are authenticated with it, so
a value opens nowhere else.

AES-GCM must never see one nonce twice under one key, and with random nonces of 96 bits NIST allows 2^32 values a key.
So no configured key encrypts anything: each process derives keys from it (HKDF-SHA256, with a random salt of 128
bits), and takes a new one after `VALUES_PER_SALT`. Then two values share key and nonce with a chance below 2^-56 for
each salt.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gapless.errors import Unavailable

KEY_BYTES: Final = 32
VALUES_PER_SALT: Final = 1 << 20
"""Values that are sealed with one derived key."""
SALTS_KEPT: Final = 256
"""Derived keys of each configured key that are kept in memory to open values with."""
PLAIN, COMPRESSED = 1, 2
"""The formats: the bytes as they are, or compressed (Zstandard)."""
COMPRESSED_FROM: Final = 128
"""Bytes from which on a value is compressed."""
LEVEL: Final = 1
"""A body of 2 kB takes 9 µs, and zlib 42, for the same 42 % of its size; higher levels save little."""
OWNER, SALT, NONCE = slice(1, 17), slice(17, 33), slice(33, 45)
HEAD_BYTES: Final = 45
CLEAR: Final = "clear"
"""Stands for no key where keys are counted, so it is no key's id."""
_of_thread = threading.local()


class CannotOpen(Unavailable):
    """A sealed value cannot be opened. The message says why, and what to do."""


class KeyMissing(CannotOpen):
    """The key that sealed a value is not among ours."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"it is sealed with the key {key_id!r}, which is not configured, or is another one now: put that key back "
            "into [encryption]; `gapless keys check` says what needs it"
        )
        self.key_id = key_id


class SealBroken(CannotOpen):
    """A value was changed or moved, or its key has other bytes than the one of the same id that sealed it."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"it does not open with the key {key_id!r}: it was changed, moved, or sealed with another one")


def owner_of(source_id: int, name: str) -> bytes:
    """Return the owner of a value: a digest of the source and of the name of what it belongs to."""
    return hashlib.sha256(b"%d\0%b" % (source_id, name.encode(errors="surrogatepass"))).digest()[:16]


class SealingKey:
    """A configured key of 32 bytes, from which the keys are derived that encrypt. No repr or message shows it.

    One thread at a time seals with it; any number opens.
    """

    def __init__(
        self,
        key_id: str,
        secret: bytes,
        random: Callable[[int], bytes] = os.urandom,
        *,
        values_per_salt: int = VALUES_PER_SALT,
    ) -> None:
        self.id = key_id
        self._secret = secret
        self._random = random
        self._values_per_salt = values_per_salt
        self._context = key_id.encode() + b"\0"
        self._salt, self._left = b"", 0
        self._sealing: AESGCM
        self._derived: dict[bytes, AESGCM] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Tells keys of one id apart, and tells nothing of the key."""
        return self._derive(b"", b"gapless fingerprint", 8).hex()

    def seal(self, value: bytes, owner: bytes, place: bytes) -> bytes:
        """Return the sealed value, which opens only for the same owner and place."""
        if not self._left:
            self._salt, self._left = self._random(16), self._values_per_salt
            self._sealing = AESGCM(self._derive(self._salt, b"gapless values", KEY_BYTES))
        self._left -= 1
        inside, form = value, PLAIN
        if len(value) >= COMPRESSED_FROM and len(smaller := _compressor().compress(value)) < len(value):
            inside, form = smaller, COMPRESSED
        head, nonce = bytes((form,)) + owner, self._random(12)
        return b"".join((head, self._salt, nonce, self._sealing.encrypt(nonce, inside, self._context + head + place)))

    def open(self, sealed: bytes, owner: bytes | None, place: bytes) -> bytes:
        """Return the value; `owner` None: whoever's it says that it is. Raises `SealBroken`."""
        if len(sealed) < HEAD_BYTES or (owner is not None and sealed[OWNER] != owner):
            raise SealBroken(self.id)
        try:
            head = sealed[: OWNER.stop]
            inside = self._opening(sealed[SALT]).decrypt(
                sealed[NONCE], sealed[HEAD_BYTES:], self._context + head + place
            )
        except InvalidTag:
            raise SealBroken(self.id) from None
        value: bytes = _decompressor().decompress(inside) if sealed[0] == COMPRESSED else inside
        return value

    def _opening(self, salt: bytes) -> AESGCM:
        found = self._derived.get(salt)
        if found is None:
            if len(self._derived) >= SALTS_KEPT:
                self._derived.clear()  # atomic: other threads open values too
            found = self._derived[salt] = AESGCM(self._derive(salt, b"gapless values", KEY_BYTES))
        return found

    def _derive(self, salt: bytes, info: bytes, length: int) -> bytes:
        derived: bytes = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(self._secret)
        return derived

    def __repr__(self) -> str:
        return f"SealingKey({self.id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """What a ledger needs, compared with the keys that a process has."""

    missing: tuple[str, ...] = ()
    """Ids of keys that rows need and that are not configured."""
    wrong: tuple[str, ...] = ()
    """Ids of configured keys that have other bytes than the keys of the same id that the ledger knows."""
    blocked: str = ""
    """Why nothing may be recorded; empty: it may."""

    @property
    def unusable(self) -> tuple[str, ...]:
        """Return the ids of the keys without which some rows cannot be read."""
        return tuple(sorted({*self.missing, *self.wrong}))


class Keyring:
    """The keys of a process: the first seals, all open. Without keys everything is stored and read as it is.

    `replace` changes the keys while the process runs.
    """

    def __init__(self, keys: Iterable[SealingKey] = (), *, seals: bool = True) -> None:
        self.keys = {key.id: key for key in keys}
        self.seals = seals
        """False: what is new is stored in the clear, and what is sealed can be read."""
        self.state = KeyState()
        """As last compared with the ledger."""

    @property
    def current(self) -> SealingKey | None:
        """Return the key that seals; None: nothing is sealed."""
        return next(iter(self.keys.values()), None) if self.seals else None

    @property
    def is_used(self) -> bool:
        """Return False if what is recorded is stored as it is."""
        return bool(self.state.blocked) or (self.seals and bool(self.keys))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Return {id: fingerprint} of the keys."""
        return {key.id: key.fingerprint for key in self.keys.values()}

    def replace(self, other: "Keyring") -> None:
        """Take the keys of `other`. Those that stay keep what was derived of them."""
        self.keys = {
            key.id: mine if (mine := self.keys.get(key.id)) and mine.fingerprint == key.fingerprint else key
            for key in other.keys.values()
        }

    def open(self, value: bytes, key_id: str | None, owner: bytes | None, place: bytes) -> bytes:
        """Return a stored value as it was; `key_id` None: it is not sealed. Raises `CannotOpen`."""
        if key_id is None:
            return value
        key = self.keys.get(key_id)
        if key is None or key_id in self.state.wrong:
            raise KeyMissing(key_id)
        return key.open(value, owner, place)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.keys)})"


def compare(ring: Keyring, known: Mapping[str, str], needed: Collection[str]) -> KeyState:
    """Return how the keys fit a ledger that knows the fingerprints `known` and has rows by the keys `needed`."""
    ours = ring.fingerprints
    missing = tuple(sorted(set(needed) - ours.keys()))
    wrong = tuple(sorted(key_id for key_id, print_ in ours.items() if known.get(key_id, print_) != print_))
    blocked = ""
    if missing and not ours:
        blocked = f"the ledger is sealed with the key {', '.join(missing)}, and no key is configured in [encryption]"
    elif ring.current is not None and ring.current.id in wrong:
        blocked = f"the key {ring.current.id!r} is not the one of that id that the ledger knows: give it another id"
    return KeyState(missing=missing, wrong=wrong, blocked=blocked)


def _compressor() -> Any:
    if not hasattr(_of_thread, "compressor"):
        from zstandard import ZstdCompressor  # noqa: PLC0415 - an extra

        _of_thread.compressor = ZstdCompressor(level=LEVEL)
    return _of_thread.compressor


def _decompressor() -> Any:
    if not hasattr(_of_thread, "decompressor"):
        from zstandard import ZstdDecompressor  # noqa: PLC0415 - an extra

        _of_thread.decompressor = ZstdDecompressor()
    return _of_thread.decompressor
