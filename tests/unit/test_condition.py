"""Conditions on payloads: true, false, or a person decides; within bounds, whatever a stranger has written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.condition import MOST_BYTES, Condition, ConditionInvalid, Document

INVOICE = {"data": {"object": {"currency": "eur", "amount": 500, "tags": ["vip"], "paid": True}}}
EVERYTHING = Condition("a == b || length(a) > `0` || contains(to_string(@), 'x') || max_by(a, &b) == a[?b > `1`] | [0]")


def judged(text: str, payload: Any = INVOICE) -> bool | None:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Condition(text).judge(Document(body))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("data.object.currency == 'eur'", True),
        ("data.object.currency == 'eur' && data.object.amount >= `1000`", False),
        ("contains(data.object.tags, 'vip')", True),
        ("data.object.paid", True),
        ("!(data.object.paid)", False),
        ("data.object.nothing == 'eur'", False),
        ("data.object.nothing != 'eur'", True),
        ("contains(data.object.nothing || `[]`, 'vip')", False),
    ],
)
def test_a_condition_is_true_or_false(text: str, verdict: bool) -> None:
    assert judged(text) is verdict


@pytest.mark.parametrize(
    "text",
    [
        "data.object.nothing > `1`",
        "data.object.currency > `1`",
        "contains(data.object.nothing, 'vip')",
        "starts_with(data.object.amount, 'x')",
        "data.object.amount",
        "data.object",
        "sum(data.object.tags) > `1`",
    ],
)
def test_what_is_neither_true_nor_false_is_for_a_person(text: str) -> None:
    assert judged(text) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"<xml/>",
        b"\xff",
        b'{"data":',
        b'{"a":"\\ud83d"}',
        b'{"a":1e400}',
        b"[" * 100_000,
        b" " * MOST_BYTES + b"1",
    ],
    ids=["empty", "xml", "bytes", "cut", "surrogate", "huge number", "deep", "long"],
)
def test_a_payload_that_cannot_be_read_is_for_a_person(payload: bytes) -> None:
    assert judged("data.object.currency == 'eur'", payload) is None


@pytest.mark.parametrize("text", ["length(a[?@ == `2`]) > `0`", "length(a[*].b.c[]) > `0`", "map(&b, a) == a"])
def test_an_evaluation_ends_after_so_many_steps(text: str) -> None:
    assert judged(text, {"a": [1] * 300}) is not None
    assert judged(text, {"a": [1] * 100_000}) is None


def test_a_deep_payload_costs_nothing_that_others_need() -> None:
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    assert judged("a.a.a == b", deep) is False
    assert judged("to_string(@) == 'x'", deep) in (False, None)


@given(payload=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.sampled_from("ab"), each),
))  # fmt: skip
def test_no_payload_makes_an_error(payload: Any) -> None:
    assert judged(EVERYTHING.text, payload) in (True, False, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a ==", "Incomplete expression"),
        ("a = b", "Bad jmespath expression"),
        ("regex(a, 'x')", "there is no function regex"),
        ("a && nothing(b)", "there is no function nothing"),
        ("a[?length(b, c)]", "length takes 1 arguments, not 2"),
        ("not_null()", "not_null takes 1 or more arguments, not 0"),
        ("(" * 990 + "a" + ")" * 990, "nested too deeply"),
        ("a" * 2001, "it has 2001 characters"),
    ],
)
def test_what_fails_on_every_payload_is_refused_at_the_start(text: str, problem: str) -> None:
    with pytest.raises(ConditionInvalid, match=problem):
        Condition(text)


def test_a_payload_is_decoded_once_for_all_conditions() -> None:
    document = Document(b'{"a": [1]}')
    assert document.read() is document.read()


def test_conditions_are_equal_by_their_text() -> None:
    assert Condition("a == b") == Condition("a == b") != Condition("a == c")
    assert len({Condition("a == b"), Condition("a == b")}) == 1
