"""What a source masks is in nothing that is shown, and everything else is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless import masking

EVENT = {
    "id": "evt_1",
    "data": {"object": {"card": {"last4": "4242", "n": 17}, "items": [{"to": "ann"}, {"to": "bob"}]}},
}
TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.text("abc/~*", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc/~*", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("pointer", "gone", "kept"),
    [
        ("/data/object/card", ["4242", "17"], ["evt_1", "ann"]),
        ("/data/object/card/last4", ["4242"], ["17"]),
        ("/data/object/items/*/to", ["ann", "bob"], ["4242"]),
        ("/data/object/items/1/to", ["bob"], ["ann"]),
        ("/data/*/items", ["ann", "bob"], ["4242"]),
        ("/data/object/absent/deeper", [], ["evt_1", "4242", "ann", "bob"]),
        ("/id/deeper", [], ["evt_1"]),
    ],
)
def test_a_pointer_hides_its_value_and_no_other(pointer: str, gone: list[str], kept: list[str]) -> None:
    text = masking.shown(json.dumps(EVENT).encode(), [pointer]).decode()
    assert [each for each in gone if each in text] == []
    assert [each for each in kept if each not in text] == []


def test_steps_are_written_as_in_rfc_6901() -> None:
    hidden = masking.shown(b'{"a/b": {"m~n": "secret"}, "c": 1}', ["/a~1b/m~0n"])
    assert json.loads(hidden) == {"a/b": {"m~n": "***"}, "c": 1}


def test_what_is_no_json_is_not_shown_where_fields_are_masked() -> None:
    for payload in (b"card=4242", b'{"card": "4242"', b"\xff", b"[" * 100_000):
        assert b"4242" not in masking.shown(payload, ["/card"])
        assert masking.shown(payload, []) == payload


def test_errors_lose_masked_values_and_keep_the_rest() -> None:
    payload, pointers = json.dumps(EVENT).encode(), ["/data/object/card", "/id"]
    assert masking.scrubbed("KeyError: '4242' of evt_1 for ann", payload, pointers) == "KeyError: '***' of *** for ann"
    with pytest.raises(KeyError) as caught:
        {}["4242"]
    shown = masking.scrubbed_error(caught.value, payload, pointers)
    assert (str(shown), shown.__cause__) == ("KeyError: '***'", None)
    assert shown.__traceback__ is caught.value.__traceback__
    assert masking.scrubbed_error(caught.value, payload, []) is caught.value


@given(value=TEXTS, steps=st.lists(st.text("abc/~*", max_size=2), min_size=1, max_size=3))
def test_masking_keeps_the_shape_and_never_fails(value: object, steps: list[str]) -> None:
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    once = masking.shown(json.dumps(value).encode(), [pointer])
    assert masking.shown(once, [pointer]) == once
    if "*" not in steps and isinstance(value, dict) and steps[0] not in value:
        assert json.loads(once) == value
