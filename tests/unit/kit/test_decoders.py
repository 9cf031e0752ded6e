"""Fields are there and of their type, or the path of the one that is not is named."""

from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from gapless_reconcilers.kit.contract import RemoteEvent
from gapless_reconcilers.kit.decoders import (
    decode_items,
    decode_json,
    decode_or_none,
    decode_response,
    decode_webhook,
    has,
    raw_at,
    recordable,
    recordable_items,
    rows_at,
    value_at,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape
from gapless_reconcilers.kit.pagination import cursor_after, other_size, require

BODY = {"data": [{"id": "a"}, {"id": "b"}], "meta": {"count": 2, "more": False, "next": None, "name": ""}}


class Row(msgspec.Struct):
    id: str
    size: int = 0


class Rows(msgspec.Struct):
    data: list[msgspec.Raw]


def test_required_fields_are_given_by_dotted_path() -> None:
    assert require(BODY, "data") == [{"id": "a"}, {"id": "b"}]
    assert require(BODY, "data[-1].id") == "b"
    assert require(BODY, "meta.next") is None


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("items", "items"),
        ("data[2].id", "data[2]"),
        ("data.id", "data.id"),
        ("meta.other.name", "meta.other"),
    ],
)
def test_absent_field_is_named(path: str, named: str) -> None:
    with pytest.raises(UnexpectedShape, match="missing") as caught:
        require(BODY, path)
    assert caught.value.path == named


def request(cursor: str | None = None) -> httpx.Request:
    return httpx.Request("GET", "https://api.example/rows", params={"starting_after": cursor} if cursor else None)


def test_cursor_moves_on_or_the_walk_is_refused() -> None:
    assert cursor_after(request(), "b", has_more=True) == "b"
    assert cursor_after(request("a"), "b", has_more=True) == "b"
    assert cursor_after(request("a"), "b", has_more=False) is None
    assert cursor_after(request(), "", has_more=False) is None
    with pytest.raises(UnexpectedShape, match="empty although has_more"):
        cursor_after(request("a"), "", has_more=True)
    with pytest.raises(UnexpectedShape, match="asked to start after"):
        cursor_after(request("b"), "b", has_more=True)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"rows":[]}', "data"),
        (b'{"data":{}}', "data"),
        (b"[]", "body"),
        (b"<html>", "body"),
        (b"", "body"),
        (b'{"data":[1', "body"),
    ],
)
def test_answer_of_another_shape_names_the_field(body: bytes, path: str) -> None:
    with pytest.raises(UnexpectedShape) as caught:
        decode_response(httpx.Response(200, content=body), Rows)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("item", "path"),
    [
        (b'{"size":1}', "data[1].id"),
        (b'{"id":7}', "data[1].id"),
        (b'{"id":"b","size":"x"}', "data[1].size"),
        (b"7", "data[1]"),
    ],
)
def test_item_of_another_shape_names_its_place_in_the_list(item: bytes, path: str) -> None:
    with pytest.raises(UnexpectedShape) as caught:
        decode_items([msgspec.Raw(b'{"id":"a"}'), msgspec.Raw(item)], Row, "data")
    assert caught.value.path == path


def test_items_keep_the_bytes_they_came_in() -> None:
    rows = decode_response(httpx.Response(200, content=b'{"data":[ {"id": "a"} ,{"id":"b" }]}'), Rows)
    assert [bytes(row) for row in rows.data] == [b'{"id": "a"}', b'{"id":"b" }']
    assert [row.id for row in decode_items(rows.data, Row, "data")] == ["a", "b"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"size":1}', b'{"id":1}', b'{"id":"\xff"}', b'{"id":"a","deep":' + b"[" * 100_000]
)
def test_webhook_body_that_cannot_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedWebhook):
        decode_webhook(body, Row)


def test_messages_never_show_a_value() -> None:
    with pytest.raises(MalformedWebhook) as caught:
        decode_webhook(b'{"id":"a","size":"4242 4242 4242 4242"}', Row)
    assert "4242" not in str(caught.value)


def test_any_type_that_msgspec_knows_can_be_wanted() -> None:
    body = b'{"data":[{"id":"a"},{"id":"b"}],"meta":{"next":null}}'
    assert value_at(body, "data[-1].id", str) == "b"
    assert value_at(body, "meta.next", str | int | None) is None
    assert [bytes(row) for row in rows_at(body, "data")] == [b'{"id":"a"}', b'{"id":"b"}']
    assert decode_json(raw_at(body, "meta"), dict[str, str | None], "meta") == {"next": None}
    assert (has(body, "meta.next"), has(body, "meta.other")) == (True, False)


@pytest.mark.parametrize(("path", "wanted"), [("data", "data"), ("data[0]", "data[0]"), ("", "body")])
def test_value_of_another_type_is_named(path: str, wanted: str) -> None:
    with pytest.raises(UnexpectedShape, match="wanted int") as caught:
        value_at(b'{"data":[{}]}', path, int)
    assert caught.value.path == wanted


@pytest.mark.parametrize("text", [b"", b"7", b'{"id":7}', b'{"id":"\xff"}', b'{"id":' + b"[" * 100_000])
def test_another_shape_is_none_where_that_is_no_error(text: bytes) -> None:
    assert decode_or_none(text, Row) is None
    assert decode_or_none(b'{"id":"a"}', Row) == Row(id="a")


def event(row: Row, payload: msgspec.Raw | bytes) -> RemoteEvent:
    at = datetime.fromtimestamp(row.size, UTC)
    return RemoteEvent(key=row.id, type="row", occurred_at=at, payload=payload)


UNRECORDABLE = (Row("", 10**9), Row("x" * 600, 10**9), Row("a\0", 10**9), Row("a", 0), Row("a", 10**30))


@pytest.mark.parametrize("row", UNRECORDABLE)
def test_event_that_cannot_be_recorded_is_refused_on_either_road(row: Row) -> None:
    with pytest.raises(MalformedWebhook, match="the event cannot be recorded: "):
        recordable(None, event, row, b"{}")
    with pytest.raises(UnexpectedShape, match="body is not recordable: "):
        recordable("", event, row, b"{}")
    rows, raw = [Row("a", 10**9), row], [msgspec.Raw(b"{}")] * 2
    with pytest.raises(UnexpectedShape, match="not recordable: ") as caught:
        recordable_items("data", event, rows, raw)
    assert caught.value.path == "data[1]"


def test_field_that_an_event_lacks_is_named_on_either_road() -> None:
    def read(row: Row, payload: msgspec.Raw) -> RemoteEvent:
        return event(Row(require({"id": "a"} if row.size else {}, "id"), 10**9), payload)

    raw = msgspec.Raw(b"{}")
    with pytest.raises(MalformedWebhook, match="id is missing"):
        recordable(None, read, Row("a"), raw)
    with pytest.raises(UnexpectedShape) as caught:
        recordable_items("data", read, [Row("a", 1), Row("b")], [raw, raw])
    assert caught.value.path == "data[1].id"


def test_recordable_events_pass_unchanged() -> None:
    rows, raw = [Row("a", 10**9), Row("b", 10**9)], [msgspec.Raw(b"{}"), msgspec.Raw(b"[]")]
    assert [(each.key, bytes(each.payload)) for each in recordable_items("", event, rows, raw)] == [
        ("a", b"{}"),
        ("b", b"[]"),
    ]
    assert recordable(None, event, rows[0], payload=b"{}").key == "a"


@pytest.mark.parametrize(("size", "most", "other"), [(100, 100, 66), (50, 100, 100), (1, 1, 1), (500, 500, 333)])
def test_another_size_of_page_ends_elsewhere(size: int, most: int, other: int) -> None:
    assert other_size(size, most) == other
