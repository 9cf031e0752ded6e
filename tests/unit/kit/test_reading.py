"""Fields are there and of their type, or the path of the one that is not is named."""

import httpx
import msgspec
import pytest

from gapless_reconcilers.kit.decoding import decode_items, decode_response, decode_webhook
from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape
from gapless_reconcilers.kit.paging import (
    cursor_after,
    require,
    require_bool,
    require_int,
    require_list,
    require_str,
)

BODY = {"data": [{"id": "a"}, {"id": "b"}], "meta": {"count": 2, "more": False, "next": None, "name": ""}}


class Row(msgspec.Struct):
    id: str
    size: int = 0


class Rows(msgspec.Struct):
    data: list[msgspec.Raw]


ROW = msgspec.json.Decoder(Row)
ROWS = msgspec.json.Decoder(Rows)


def test_required_fields_are_given_by_dotted_path() -> None:
    assert require_list(BODY, "data") == [{"id": "a"}, {"id": "b"}]
    assert require_str(BODY, "data[-1].id") == "b"
    assert require_int(BODY, "meta.count") == 2
    assert require_bool(BODY, "meta.more") is False
    assert require(BODY, "meta.next") is None


@pytest.mark.parametrize(
    ("read", "path", "named", "got"),
    [
        (require_list, "items", "items", "missing"),
        (require_list, "meta", "meta", "an object"),
        (require_list, "meta.next", "meta.next", "null"),
        (require_str, "meta.count", "meta.count", "a whole number"),
        (require_str, "meta.name", "meta.name", "an empty text"),
        (require_int, "meta.more", "meta.more", "a truth value"),
        (require_str, "data[2].id", "data[2]", "missing"),
        (require_str, "data.id", "data.id", "missing"),
        (require_str, "meta.other.name", "meta.other", "missing"),
    ],
)
def test_absent_or_mistyped_field_is_named(read: object, path: str, named: str, got: str) -> None:
    assert callable(read)
    with pytest.raises(UnexpectedShape, match=got) as caught:
        read(BODY, path)
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
        decode_response(httpx.Response(200, content=body), ROWS)
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
        decode_items([msgspec.Raw(b'{"id":"a"}'), msgspec.Raw(item)], ROW, "data")
    assert caught.value.path == path


def test_items_keep_the_bytes_they_came_in() -> None:
    rows = decode_response(httpx.Response(200, content=b'{"data":[ {"id": "a"} ,{"id":"b" }]}'), ROWS)
    assert [bytes(row) for row in rows.data] == [b'{"id": "a"}', b'{"id":"b" }']
    assert [row.id for row in decode_items(rows.data, ROW, "data")] == ["a", "b"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"size":1}', b'{"id":1}', b'{"id":"a","other":"\xff"}', b'{"id":"a","deep":' + b"[" * 100_000]
)
def test_webhook_body_that_cannot_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedWebhook):
        decode_webhook(body, ROW)


def test_messages_never_show_a_value() -> None:
    with pytest.raises(MalformedWebhook) as caught:
        decode_webhook(b'{"id":"a","size":"4242 4242 4242 4242"}', ROW)
    assert "4242" not in str(caught.value)
