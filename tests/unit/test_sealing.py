"""Sealed values open only where they belong, with the key that sealed them."""

from itertools import count

import pytest

from gapless import sealing
from gapless.sealing import CannotOpen, KeyMissing, Keyring, SealBroken, SealingKey, compare, owner_of

KEY, OTHER = SealingKey("a", b"k" * 32), SealingKey("a", b"l" * 32)
OWNER, PLACE = owner_of(1, "evt_1"), b"payload\x001"
BODY = b'{"id": "evt_1", "customer": "canary", "lines": [%b]}' % (b'{"amount": 4242}, ' * 50)


@pytest.mark.parametrize("value", [b"", b"x", BODY, bytes(range(256)) * 9])
def test_a_sealed_value_opens_as_it_was(value: bytes) -> None:
    sealed = KEY.seal(value, OWNER, PLACE)
    assert KEY.open(sealed, OWNER, PLACE) == KEY.open(sealed, None, PLACE) == value
    assert len(value) < 2 or value not in sealed


def test_a_sealed_value_says_nothing_and_is_smaller() -> None:
    sealed = KEY.seal(BODY, OWNER, PLACE)
    assert b"canary" not in sealed
    assert len(sealed) < len(BODY) / 2


@pytest.mark.parametrize(
    ("key", "owner", "place"),
    [
        (KEY, owner_of(2, "evt_1"), PLACE),
        (KEY, owner_of(1, "evt_2"), PLACE),
        (KEY, OWNER, b"payload\x002"),
        (OTHER, OWNER, PLACE),
        (SealingKey("b", b"k" * 32), OWNER, PLACE),
    ],
)
def test_a_sealed_value_opens_nowhere_else(key: SealingKey, owner: bytes, place: bytes) -> None:
    with pytest.raises(SealBroken):
        key.open(KEY.seal(BODY, OWNER, PLACE), owner, place)


def test_no_changed_byte_goes_unseen() -> None:
    sealed = KEY.seal(b"some value", OWNER, PLACE)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        for owner in (OWNER, None):
            with pytest.raises(SealBroken):
                KEY.open(bytes(changed), owner, PLACE)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            KEY.open(sealed[:length], None, PLACE)


def test_a_derived_key_seals_so_many_values_and_no_more() -> None:
    numbers = count(1)
    key = SealingKey("a", b"k" * 32, random=lambda length: next(numbers).to_bytes(length), values_per_salt=3)
    sealed = [key.seal(b"v", OWNER, PLACE) for _ in range(7)]
    salts = [each[sealing.SALT] for each in sealed]
    assert [salts.count(salt) for salt in dict.fromkeys(salts)] == [3, 3, 1]
    assert len({each[sealing.NONCE] for each in sealed}) == 7
    assert {key.open(each, OWNER, PLACE) for each in sealed} == {b"v"}


def test_a_fingerprint_tells_keys_apart_and_nothing_shows_them() -> None:
    assert KEY.fingerprint != OTHER.fingerprint
    assert KEY.fingerprint == SealingKey("b", b"k" * 32).fingerprint
    assert (repr(KEY), repr(Keyring([KEY]))) == ("SealingKey(a)", "Keyring(a)")


def test_what_is_in_the_clear_is_read_beside_what_is_sealed() -> None:
    ring = Keyring([KEY])
    assert ring.open(b"clear", None, OWNER, PLACE) == b"clear"
    assert ring.open(KEY.seal(b"v", OWNER, PLACE), "a", OWNER, PLACE) == b"v"
    with pytest.raises(KeyMissing, match="'b', which is not configured"):
        ring.open(b"", "b", OWNER, PLACE)


def test_a_key_that_is_another_one_opens_nothing() -> None:
    ring = Keyring([OTHER])
    ring.state = compare(ring, {"a": KEY.fingerprint}, {"a"})
    assert ring.state.unusable == ("a",)
    with pytest.raises(CannotOpen):
        ring.open(KEY.seal(b"v", OWNER, PLACE), "a", OWNER, PLACE)


@pytest.mark.parametrize(
    ("ring", "known", "needed", "missing", "blocked"),
    [
        (Keyring(), {}, set(), (), ""),
        (Keyring(), {"a": "old"}, set(), (), ""),
        (Keyring(), {"a": "old"}, {"a"}, ("a",), "no key is configured"),
        (Keyring([KEY]), {}, {"b"}, ("b",), ""),
        (Keyring([KEY]), {"a": "another"}, set(), (), "give it another id"),
        (Keyring([KEY], seals=False), {"a": "another"}, set(), (), ""),
        (Keyring([SealingKey("b", b"m" * 32), KEY]), {"a": "another"}, {"a"}, (), ""),
    ],
)
def test_nothing_is_recorded_only_while_it_could_not_be_sealed(
    ring: Keyring, known: dict[str, str], needed: set[str], missing: tuple[str, ...], blocked: str
) -> None:
    state = compare(ring, known, needed)
    assert (state.missing, bool(state.blocked)) == (missing, bool(blocked))
    assert blocked in state.blocked
