"""The tolerant decoder reads what the fast one refuses for the sake of fields that nobody needs, and nothing else."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit import tolerant
from gapless_reconcilers.kit.contract import EARLIEST, LATEST, MAX_ROW_BYTES, RemoteEvent, Window
from gapless_reconcilers.kit.decoders import (
    decode_json,
    decode_or_none,
    decode_webhook,
    has,
    last_readable,
    raw_at,
    read_rows,
    rows_at,
    value_at,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape
from gapless_reconcilers.providers.github.listing import _Detail as GitHubDetail
from gapless_reconcilers.providers.paypal.listing import _Rows as PayPalRows
from gapless_reconcilers.providers.paypal.webhook import Event as PayPalEvent
from gapless_reconcilers.providers.shopify.graphql import Connection, GraphRefusal
from gapless_reconcilers.providers.shopify.subscription import SubscriptionNode
from gapless_reconcilers.providers.stripe.listing import StripeEvent, StripeList

DEEP = b"[" * 30_000 + b"]" * 30_000
ODD = [
    rb'"x\ud83d"',
    rb'"\udc00\ud800"',
    b'"\xff"',
    rb'{"\ud83d":1,"id":"no"}',
    DEEP,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
]
"""Values that are legal by the grammar, in the eyes of one that does not look into them."""
ODD_IDS = ["surrogate", "surrogates", "encoding", "name", "arrays", "objects"]


class Inner(msgspec.Struct):
    id: Any = None
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Wanted(msgspec.Struct, rename="camel"):
    id: str
    some_number: int
    inner: Inner
    whole: msgspec.Raw
    rows: list[msgspec.Raw] = []
    pairs: tuple[Inner, ...] = ()
    other: Inner | None = None
    table: dict[str, msgspec.Raw] = {}
    flag: bool | None = None


def body(odd: bytes) -> bytes:
    return (
        b' {"odd": %b, "id": "a\\u0062c", "someNumber": 7, "inner": {"id": "i", "x": %b}, "whole" : {"w": %b} ,'
        b' "rows": [ %b ,1], "pairs": [{"y": %b}, {}], "other": null, "table": {"k": %b}} \n'
    ) % ((odd,) * 6)


@pytest.mark.parametrize("odd", ODD, ids=ODD_IDS)
def test_odd_field_that_nobody_reads_is_passed_over(odd: bytes) -> None:
    found = decode_webhook(body(odd), Wanted)
    assert (found.id, found.some_number, found.inner.id, found.other) == ("abc", 7, "i", None)
    assert bytes(found.whole) == b'{"w": %b}' % odd
    assert list(map(bytes, found.rows)) == [odd, b"1"]
    assert found.pairs == (Inner(), Inner())
    assert bytes(found.table["k"]) == odd
    assert decode_json(body(odd), Wanted, "") == decode_or_none(body(odd), Wanted) == found


@pytest.mark.parametrize("odd", ODD, ids=ODD_IDS)
def test_paths_lead_past_odd_fields(odd: bytes) -> None:
    text = b'{"odd": %b, "data": [{"odd": %b, "id": "a"}, %b], "more": false}' % ((odd,) * 3)
    assert value_at(text, "data[0].id", str) == "a"
    assert bytes(raw_at(text, "data[-1]")) == odd
    assert (has(text, "more"), has(text, "no")) == (True, False)
    assert len(rows_at(text, "data")) == 2


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (rb'{"id":"evt_\ud83d"}', "id"),
        (b'{"id":"evt_\xff","odd":"\\ud83d"}', "id"),
        (rb'{"id":"evt_1","odd":"\ud83d","id":"evt_1"}', "id"),
        (rb'{"id":"a","someNumber":1,"inner":{"id":"\ud83d"},"whole":1}', "inner.id"),
        (rb'{"id":"a","someNumber":1,"inner":{},"whole":1,"pairs":[{},{"id":["\ud83d"]}]}', "pairs[1].id"),
        (rb'{"id":"a","someNumber":1,"inner":{},"whole":1,"table":{"\ud83d":1}}', "table"),
        (rb'{"id":"a","someNumber":1,"inner":{},"whole":1,"table":{"x":"\ud83d","x":1}}', "table.x"),
        (rb'{"odd":"\ud83d","id":7}', "id"),
        (rb'{"odd":"\ud83d","id":"a"}', "someNumber"),
        (rb'{"odd":"\ud83d","inner":[]}', "inner"),
    ],
)
def test_needed_field_that_is_odd_is_never_replaced(text: bytes, path: str) -> None:
    with pytest.raises(UnexpectedShape) as caught:
        decode_json(text, Wanted, "")
    assert caught.value.path == path
    with pytest.raises(MalformedWebhook):
        decode_webhook(text, Wanted)


@pytest.mark.parametrize(
    "text",
    [
        rb'{"x":"\ud83d"', rb'{"x":"\ud83d",}', rb'["\ud83d" 1]', rb'{"x":"\ud83d"} x', rb'{"x":"\ud83d","y":01}',
        rb'{"x":"\ud83d","y":1.}', rb'{"x":"\ud83d","y":tru}', rb'{"x":"\ud83d","y":[1}}', rb'{"x":"\ud83d" "y":1}',
        rb'{"x":"\ud83d",y:1}', rb'{"x":"\ud83d","y":"\x"}', b'{"x":"\\ud83d","y":"\x01"}', b"", b"<html>",
        rb'{"x":"\ud83d","y":"\u12"}',
        rb'{"x":"\ud83d","y"}', rb'{"x":"\ud83d"]', b"[" * 50_000, b"{" * 50_000, b'{"x":' + DEEP[:-1] + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_stays_refused(text: bytes) -> None:
    assert not tolerant.is_json(text)
    with pytest.raises(msgspec.DecodeError):
        tolerant.decode(text, dict[str, msgspec.Raw])
    with pytest.raises(UnexpectedShape):
        decode_json(text, dict[str, msgspec.Raw], "")


TYPES = (
    Wanted, StripeEvent, StripeList, PayPalEvent, PayPalRows, GitHubDetail, Connection, GraphRefusal, SubscriptionNode,
    msgspec.Raw, list[msgspec.Raw], dict[str, msgspec.Raw], dict[str, Any], list[Inner], Inner | None, str, int, bool,
    str | int | None, object,
)  # fmt: skip
WORDS = """
    id some_number someNumber inner whole rows pairs other table flag type created livemode data object account at x é
    has_more event_type create_time resource events links rel href guid delivered_at event action request payload nodes
    pageInfo hasNextPage endCursor errors message extensions code topic uri format cost
"""
NAMES = st.sampled_from(WORDS.split())
TIMES = st.datetimes().map(lambda time: f"{time.isoformat()}Z")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6).filter(lambda text: text.isprintable()) | TIMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=8),
    max_leaves=25,
)  # fmt: skip


def example(wanted: Any) -> st.SearchStrategy[Any]:
    """Values that are often of type `wanted`, and often nearly so."""
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        parts = {each.encode_name: example(each.type) | VALUES for each in msgspec.structs.fields(wanted)}
        return st.fixed_dictionaries({}, optional={**parts, "x": VALUES}) | st.fixed_dictionaries(parts)
    known: dict[Any, st.SearchStrategy[Any]] = {str: st.text(max_size=4), int: st.integers(), bool: st.booleans()}
    return known.get(wanted, VALUES)


@settings(max_examples=600, deadline=None)
@given(data=st.data(), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_both_decoders_give_equal_values(data: st.DataObject, indent: int | None, ascii_only: bool) -> None:
    wanted = data.draw(st.sampled_from(TYPES), label="type")
    value = data.draw(example(wanted), label="value")
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(errors="ignore")
    assert tolerant.is_json(text) is (decode_or_none(text, msgspec.Raw) is not None)
    try:
        fast = msgspec.json.Decoder(wanted).decode(text)
    except msgspec.DecodeError as refusal:
        with pytest.raises(type(refusal)):
            tolerant.decode(text, wanted)
        return
    found = tolerant.decode(text, wanted)
    assert found == fast
    assert msgspec.json.encode(found) == msgspec.json.encode(fast)  # True is not 1


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=40) | st.text('{}[]",:\\u dc8tfn0.e-1', max_size=30).map(str.encode))
def test_what_the_fast_decoder_accepts_is_accepted(text: bytes) -> None:
    """Also bad UTF-8 and numbers beyond a double, in what is kept as it is."""
    for wanted in (msgspec.Raw, list[msgspec.Raw]):
        try:
            fast = msgspec.json.Decoder(wanted).decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        assert tolerant.decode(text, wanted) == fast


def remote(row: Inner, payload: msgspec.Raw) -> RemoteEvent:
    at = row.at or EARLIEST - timedelta(days=1)
    return RemoteEvent(key=str(row.id), type="x", occurred_at=at, payload=payload)


def test_rows_are_read_one_by_one() -> None:
    """A row that cannot be read, or not be recorded, is kept with its digest and the times of its neighbours."""
    texts = [
        b'{"id":"a","at":"2026-11-20T12:00:00Z"}',
        b"{}",
        rb'{"id":"\ud83d"}',
        b'{"id":"b","at":"2026-11-20T12:00:05Z"}',
        b"7" * 70_000,
    ]
    found = read_rows("data", list(map(msgspec.Raw, texts)), Inner, remote)
    assert [event.key for event in found.events] == ["a", "b"]
    times = [event.occurred_at for event in found.events]
    assert [(odd.before, odd.after) for odd in found.unreadable] == [(times[0], times[1])] * 2 + [(times[1], None)]
    assert [odd.row for odd in found.unreadable] == [texts[1], texts[2], texts[4][:MAX_ROW_BYTES]]
    assert found.unreadable[2].digest == hashlib.sha256(texts[4]).hexdigest()
    places = [odd.problem.partition(" is ")[0] for odd in found.unreadable]
    assert places == ["data[1]", "data[2].id", "data[4]"]
    page = found.page(Window(start=times[1], end=LATEST), None)
    assert ([event.key for event in page.events], len(page.unreadable), page.rows) == (["b"], 3, 5)


def test_last_readable_row_is_found_from_the_end() -> None:
    class Id(msgspec.Struct):
        id: str

    rows = [msgspec.Raw(each) for each in (b'{"id":"a"}', b'{"id":"b","x":null}', b'{"id":null}', b"null")]
    assert last_readable(rows, Id) == Id("b")
    assert last_readable(rows[2:], Id) is None


class Pairs(list[tuple[str, Any]]):
    """The members of an object, in which a name may stand twice."""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(st.tuples(st.sampled_from('ab"\\{é'), inner), max_size=4).map(Pairs)
    ),
    max_leaves=12,
)


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)} : {written(each)}" for name, each in value) + "}"
    return "[" + ",".join(map(written, value)) + "]" if isinstance(value, list) else json.dumps(value)


def repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len({*names}) < len(names) or any(repeats(each) for _, each in value)
    return isinstance(value, list) and any(map(repeats, value))


@settings(max_examples=500)
@given(JSON)
def test_a_name_that_stands_twice_in_an_object_is_found_at_any_depth(value: Any) -> None:
    assert tolerant.has_repeated_name(written(value).encode()) == repeats(value)


def test_depth_and_garbage_are_no_trouble_for_the_search_of_repeated_names() -> None:
    assert not tolerant.has_repeated_name(DEEP)
    assert not tolerant.has_repeated_name(b']}":{"')
    assert tolerant.has_repeated_name(rb'{"\ud83d":1,"\ud83d":2}')
