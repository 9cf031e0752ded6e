"""Six ways for a list to go on, and how each ends; a list that does not move on is refused."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from declared import WINDOW, build, declaration

from gapless_reconcilers.kit.contract import Window
from gapless_reconcilers.kit.errors import (
    HistoryExpired,
    ProviderUnavailable,
    RateLimited,
    UnexpectedShape,
)

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def row(number: int, at: datetime = NOON) -> dict[str, Any]:
    return {"id": f"ev_{number}", "kind": "order.paid", "created_at": (at + timedelta(seconds=number)).isoformat()}


def lister(page: dict[str, Any], **listed: Any) -> Any:
    table = declaration()
    table["list"] |= {"page": page, **listed}
    return build(table)


def walk(provider: Any, answers: list[Any], window: Window = WINDOW) -> tuple[list[str], list[httpx.URL]]:
    """The keys that `answers` (bodies, or bodies with headers) give, and the addresses that were asked."""
    request, keys, asked = provider.first_request("", window), [], []
    for answer in answers:
        assert request is not None, f"the walk ended early: {asked}"
        asked.append(request.url)
        body, headers = answer if isinstance(answer, tuple) else (answer, {})
        response = httpx.Response(200, content=json.dumps(body), headers=headers, request=request)
        page = provider.read_page(request, response, "", window)
        keys += [event.key for event in page.events]
        request = page.next
    assert request is None, f"the walk goes on: {request.url}"
    return keys, asked


CURSOR = {"type": "cursor", "param": "after", "cursor": "next"}


def test_a_cursor_ends_where_it_is_null() -> None:
    keys, asked = walk(lister(CURSOR), [{"data": [row(1)], "next": "a"}, {"data": [row(2)], "next": None}])
    assert keys == ["ev_1", "ev_2"]
    assert [url.params.get("after") for url in asked] == [None, "a"]
    assert all(url.params["since"] == "2026-11-20T11:20:00Z" for url in asked)


def test_a_cursor_that_is_missing_is_the_end_only_if_it_is_documented_so() -> None:
    with pytest.raises(UnexpectedShape, match="next is missing"):
        walk(lister(CURSOR), [{"data": [row(1)]}])
    assert walk(lister({**CURSOR, "optional": True}), [{"data": [row(1)]}])[0] == ["ev_1"]


@pytest.mark.parametrize("page", [CURSOR, {"type": "next_url", "url": "next"}], ids=["cursor", "next_url"])
def test_more_that_is_promised_without_a_way_there_is_never_the_end(page: dict[str, Any]) -> None:
    provider = lister({**page, "more": "more", "optional": True})
    with pytest.raises(UnexpectedShape, match="next is missing"):
        walk(provider, [{"data": [row(1)], "more": True}])
    assert walk(provider, [{"data": [row(1)], "more": False}])[0] == ["ev_1"]


def test_what_may_be_left_out_is_the_cursor_and_not_what_holds_it() -> None:
    provider = lister({"type": "cursor", "param": "after", "cursor": "meta.after", "optional": True})
    assert walk(provider, [{"data": [row(1)], "meta": {}}])[0] == ["ev_1"]
    with pytest.raises(UnexpectedShape, match="meta is missing"):
        walk(provider, [{"data": [row(1)]}])


def test_a_cursor_beside_which_a_parameter_may_not_stand_takes_its_place() -> None:
    _, asked = walk(
        lister({**CURSOR, "without": ["since"]}), [{"data": [row(1)], "next": "a"}, {"data": [], "next": None}]
    )
    assert dict(asked[1].params) == {"after": "a"}


def test_a_page_without_rows_can_be_the_end_whatever_its_cursor() -> None:
    pages = [{"data": [row(1)], "next": "a"}, {"data": [], "next": "b"}]
    assert walk(lister({**CURSOR, "until_empty": True}), pages)[0] == ["ev_1"]


def test_a_cursor_of_the_last_row_follows_the_flag() -> None:
    page = {"type": "cursor", "param": "after", "cursor": "data[-1].id", "more": "more"}
    keys, asked = walk(lister(page), [{"data": [row(1), row(2)], "more": True}, {"data": [row(3)], "more": False}])
    assert keys == ["ev_1", "ev_2", "ev_3"]
    assert asked[1].params["after"] == "ev_2"
    with pytest.raises(UnexpectedShape, match="more is true on a page without rows"):
        walk(lister(page), [{"data": [], "more": True}])
    with pytest.raises(UnexpectedShape, match=r"more is `?str"):
        walk(lister(page), [{"data": [row(1)], "more": "yes"}])


def test_a_cursor_that_does_not_move_is_refused() -> None:
    with pytest.raises(UnexpectedShape, match="next is empty, or the one of this page"):
        walk(lister(CURSOR), [{"data": [row(1)], "next": "a"}, {"data": [row(2)], "next": "a"}])


def test_a_cursor_goes_into_the_body_of_a_post() -> None:
    provider = lister(CURSOR, json={"since": "{window.start|unix_s}"}, params={})
    first = provider.first_request("", WINDOW)
    body = httpx.Response(200, content=json.dumps({"data": [row(1)], "next": "a"}), request=first)
    second = provider.read_page(first, body, "", WINDOW).next
    assert (second.method, json.loads(second.content)) == ("POST", {"since": 1795173600, "after": "a"})
    again = httpx.Response(200, content=json.dumps({"data": [row(2)], "next": "a"}), request=second)
    with pytest.raises(UnexpectedShape, match="the one of this page"):
        provider.read_page(second, again, "", WINDOW)


NEXT = {"type": "next_url", "url": "links.next"}


def test_an_address_in_the_body_is_followed_on_the_same_host_alone() -> None:
    there = "https://api.acme.example/events?page=2"
    keys, asked = walk(
        lister(NEXT), [{"data": [row(1)], "links": {"next": there}}, {"data": [row(2)], "links": {"next": None}}]
    )
    assert keys == ["ev_1", "ev_2"]
    assert str(asked[1]) == there
    for elsewhere in ("https://evil.example/events", "http://api.acme.example/events?page=2", "//evil.example/x"):
        with pytest.raises(UnexpectedShape, match="an address at"):
            walk(lister(NEXT), [{"data": [row(1)], "links": {"next": elsewhere}}])
    with pytest.raises(UnexpectedShape, match="this page's own address"):
        walk(lister(NEXT), [{"data": [row(1)], "links": {"next": there}}, {"data": [row(2)], "links": {"next": there}}])
    with pytest.raises(UnexpectedShape, match="links is missing"):
        walk(lister(NEXT), [{"data": [row(1)]}])


def test_a_relative_address_is_one_of_this_host() -> None:
    keys, asked = walk(
        lister(NEXT), [{"data": [row(1)], "links": {"next": "/events?page=2"}}, {"data": [], "links": {"next": None}}]
    )
    assert (keys, str(asked[1])) == (["ev_1"], "https://api.acme.example/events?page=2")


def test_a_link_header_is_followed_until_there_is_none() -> None:
    link = {"link": '<https://api.acme.example/events?cursor=b>; rel="next", <https://x.example/>; rel="prev"'}
    keys, asked = walk(lister({"type": "link_header"}), [({"data": [row(1)]}, link), {"data": [row(2)]}])
    assert keys == ["ev_1", "ev_2"]
    assert asked[1].params["cursor"] == "b"
    with pytest.raises(UnexpectedShape, match=r"Link is an address at 'https://evil.example'"):
        walk(lister({"type": "link_header"}), [({"data": [row(1)]}, {"link": '<https://evil.example/>; rel="next"'})])


@pytest.mark.parametrize(
    "link",
    [
        '<{0}>; rel="next last"',
        '<{0}>; rel="Next"',
        "<{0}>; Rel=next",
        '<{0}>; title="x;y, z";rel="next"',
        '<{0}>; title="a=b"; rel="next"',
        '<https://api.acme.example/x>; rel="prev", <{0}>; rel=next',
    ],
)
def test_a_link_header_is_read_as_its_standard_has_it(link: str) -> None:
    there = "https://api.acme.example/events?c=a;b=2,3"
    _, asked = walk(lister({"type": "link_header"}), [({"data": [row(1)]}, {"link": link.format(there)}), {"data": []}])
    assert str(asked[1]) == there


@pytest.mark.parametrize(
    "link", ["nonsense", '<https://api.acme.example/a; rel="next"', '<a>; rel="next', "<a> rel=next"]
)
def test_a_link_header_that_cannot_be_read_is_no_end(link: str) -> None:
    with pytest.raises(UnexpectedShape, match="Link is not readable"):
        walk(lister({"type": "link_header"}), [({"data": [row(1)]}, {"link": link})])


def test_numbered_pages_end_with_an_empty_one_or_where_the_flag_says_so() -> None:
    keys, asked = walk(lister({"type": "number"}), [{"data": [row(1)]}, {"data": [row(2)]}, {"data": []}])
    assert keys == ["ev_1", "ev_2"]
    assert [url.params.get("page") for url in asked] == [None, "2", "3"]
    flagged = {"type": "number", "param": "p", "start": 0, "more": "more"}
    _, asked = walk(lister(flagged), [{"data": [row(1)], "more": True}, {"data": [row(2)], "more": False}])
    assert asked[1].params["p"] == "1"


def test_offsets_grow_by_what_was_shown() -> None:
    pages = [{"data": [row(1), row(2)]}, {"data": [row(3)]}, {"data": []}]
    keys, asked = walk(lister({"type": "offset"}), pages)
    assert keys == ["ev_1", "ev_2", "ev_3"]
    assert [url.params.get("offset") for url in asked] == [None, "2", "3"]


@pytest.mark.parametrize("kind", ["number", "offset"])
def test_a_list_that_ignores_the_number_is_refused(kind: str) -> None:
    with pytest.raises(UnexpectedShape, match="those of the page before"):
        walk(lister({"type": kind}), [{"data": [row(1)]}] * 2)


def test_a_single_page_that_is_full_is_no_proof() -> None:
    assert walk(lister({"type": "single", "most": 3}), [{"data": [row(1), row(2)]}])[0] == ["ev_1", "ev_2"]
    with pytest.raises(UnexpectedShape, match="as many as a page can hold"):
        walk(lister({"type": "single", "most": 2}), [{"data": [row(1), row(2)]}])


def test_a_single_page_that_reaches_below_the_window_proves_it_though_it_is_full() -> None:
    narrow = Window(start=NOON + timedelta(seconds=10), end=NOON + timedelta(seconds=20))
    provider = lister({"type": "single", "most": 2}, order="newest_first")
    assert walk(provider, [{"data": [row(15), row(-51)]}], narrow)[0] == ["ev_15"]
    with pytest.raises(UnexpectedShape, match="as many as a page can hold"):
        walk(provider, [{"data": [row(15), row(-50)]}], narrow)  # a row may be out of order by the grace


@pytest.mark.parametrize(("order", "hours"), [("newest_first", -3), ("oldest_first", 3)])
def test_a_list_that_runs_against_its_order_does_not_end_the_walk(order: str, hours: int) -> None:
    """Beyond the window there may be more inside: the vendor does not do as it was asked."""
    ascending = [row(number, NOON + timedelta(hours=hours)) for number in (0, 600)]
    rows = ascending if order == "newest_first" else ascending[::-1]
    with pytest.raises(UnexpectedShape, match=r"data is not in the order of list\.order; wanted rows " + order):
        walk(lister(CURSOR, order=order), [{"data": rows, "next": "a"}])
    assert walk(lister(CURSOR, order=order), [{"data": rows[::-1], "next": "a"}])[0] == []


def test_a_list_in_order_is_read_no_further_than_the_window() -> None:
    narrow = Window(start=NOON + timedelta(seconds=10), end=NOON + timedelta(seconds=20))
    newest = lister(CURSOR, order="newest_first")
    pages = [{"data": [row(30), row(15)], "next": "a"}, {"data": [row(-51), row(-52)], "next": "b"}]
    assert walk(newest, pages, narrow)[0] == ["ev_15"]
    oldest = lister(CURSOR, order="oldest_first")
    pages = [{"data": [row(1), row(15)], "next": "a"}, {"data": [row(80), row(81)], "next": "b"}]
    assert walk(oldest, pages, narrow)[0] == ["ev_15"]
    unordered = lister(CURSOR, order="unordered")
    pages = [{"data": [row(30)], "next": "a"}, {"data": [row(1)], "next": "b"}, {"data": [row(12)], "next": None}]
    assert walk(unordered, pages, narrow)[0] == ["ev_12"]


@pytest.mark.parametrize("old", [[30, -7000], [9, 8]])
def test_one_old_row_or_one_just_before_ends_no_walk(old: list[int]) -> None:
    narrow = Window(start=NOON + timedelta(seconds=10), end=NOON + timedelta(seconds=20))
    pages = [{"data": [row(number) for number in old], "next": "a"}, {"data": [row(12)], "next": None}]
    assert walk(lister(CURSOR, order="newest_first"), pages, narrow)[0] == ["ev_12"]


def test_other_cuts_keep_their_parameters_on_every_page() -> None:
    provider = lister(CURSOR, params={"limit": 100, "since": "{window.start|rfc3339}"}, other_cuts=({"limit": 66},))
    (other,) = provider.other_requests("", WINDOW)
    response = httpx.Response(200, json={"data": [row(1)], "next": "a"}, request=other)
    following = provider.read_page(other, response, "", WINDOW).next
    assert following is not None
    assert [url.params["limit"] for url in (other.url, following.url)] == ["66", "66"]
    assert following.url.params["since"] == other.url.params["since"]


def test_the_whole_answer_for_nothing_is_nothing_and_no_other_is() -> None:
    provider = lister({**CURSOR, "optional": True}, nothing={})
    assert walk(provider, [{}])[0] == []
    with pytest.raises(UnexpectedShape, match="data is missing"):
        walk(provider, [{"errors": []}])
    with pytest.raises(UnexpectedShape, match="data is missing"):
        walk(lister(CURSOR), [{}])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"id": None}, r"data\[0\]\.id is NoneType"),
        ({"id": ""}, r"data\[0\]\.id is str"),
        ({"id": True}, r"data\[0\]\.id is bool"),
        ({"id": 1.5}, r"data\[0\]\.id is float"),
        ({"created_at": "4242 4242"}, r"^data\[0\]\.created_at is not readable as a time; wanted [^4]*$"),
        ({"created_at": "2026-11-20T12:00:00"}, r"data\[0\] is not recordable: occurred_at needs a time zone"),
        ({"created_at": 5}, r"data\[0\]\.created_at is int"),
        ({"kind": {"a": 1}}, r"data\[0\]\.kind is dict"),
        ({"id": "x" * 600}, r"data\[0\] is not recordable: key has 600 bytes"),
    ],
)
def test_a_row_that_is_not_as_declared_is_set_aside(bad: dict[str, Any], told: str) -> None:
    provider = lister(CURSOR)
    request = provider.first_request("", WINDOW)
    response = httpx.Response(200, json={"data": [{**row(1), **bad}, row(2)], "next": None}, request=request)
    page = provider.read_page(request, response, "", WINDOW)
    (odd,) = page.unreadable
    assert re.search(told, odd.problem)
    assert len(page.events) == 1


def test_cursor_of_the_last_row_is_that_of_one_that_has_it() -> None:
    provider = lister({"type": "cursor", "param": "after", "cursor": "data[-1].id", "more": "more"})
    request = provider.first_request("", WINDOW)
    for last, after in (({"id": None}, "e2"), ({"no": 1}, "e2"), (None, "e2"), ({"id": "e3"}, "e3")):
        body = {"data": [{**row(1), "id": "e1"}, {**row(2), "id": "e2"}, last], "more": True}
        page = provider.read_page(request, httpx.Response(200, json=body, request=request), "", WINDOW)
        assert page.next is not None
        assert page.next.url.params["after"] == after


ODD = [rb'"x\ud83d"', b"1e999999", b"[" * 5_000 + b"]" * 5_000]


@pytest.mark.parametrize("odd", ODD, ids=["surrogate", "number", "deep"])
def test_a_field_that_is_not_declared_may_hold_anything(odd: bytes) -> None:
    provider = lister(CURSOR)
    request = provider.first_request("", WINDOW)
    text = json.dumps({"data": [{**row(1), "note": "?"}, row(2)], "next": None, "note": "?"}).encode()
    response = httpx.Response(200, content=text.replace(b'"?"', odd), request=request)
    page = provider.read_page(request, response, "", WINDOW)
    assert (len(page.events), page.unreadable) == (2, [])
    assert odd in bytes(page.events[0].payload)


def test_statuses_mean_what_is_declared() -> None:
    table = declaration()
    table["errors"] = {"ignore": [404], "retry": [409], "throttled": [403], "expired": [410]}
    provider = build(table)
    request = provider.first_request("", WINDOW)
    answer = lambda status: httpx.Response(status, request=request, headers={"retry-after": "7"})  # noqa: E731
    provider.judge(answer(404), NOON)
    assert provider.read_page(request, answer(404), "", WINDOW).events == []
    for status, error in ((409, ProviderUnavailable), (403, RateLimited), (410, HistoryExpired)):
        with pytest.raises(error, match=f"api.acme.example/events was answered with {status}"):
            provider.judge(answer(status), NOON)


@pytest.mark.parametrize(
    ("form", "value", "at"),
    [
        ("unix_s", 1795176000, NOON),
        ("unix_ms", 1795176000250, NOON + timedelta(milliseconds=250)),
        ("rfc3339", "2026-11-20T13:00:00+01:00", NOON),
        ("rfc3339", "2026-11-20T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("iso_utc", "2026-11-20T12:00:00", NOON),
        ("iso_utc", "2026-11-20T07:00:00-05:00", NOON),
    ],
)
def test_times_are_read_as_declared(form: str, value: object, at: datetime) -> None:
    table = declaration()
    table["event"] |= {"time_format": form}
    event = build(table).options.event.read(json.dumps({**row(1), "created_at": value}).encode(), "")
    assert (event.occurred_at, event.occurred_at.utcoffset()) == (at, timedelta(0))


def test_a_type_and_a_key_can_be_made_of_several_fields() -> None:
    table = declaration()
    table["event"] |= {"type": "{kind}.{action}", "key": "{id}:{n}", "object": "about.id"}
    body = {**row(1), "action": "made", "n": 7, "about": {"id": 12}}
    event = build(table).options.event.read(json.dumps(body).encode(), "")
    assert (event.key, event.type, event.object_key) == ("ev_1:7", "order.paid.made", "12")
    del body["about"]
    assert build(table).options.event.read(json.dumps(body).encode(), "").object_key is None
