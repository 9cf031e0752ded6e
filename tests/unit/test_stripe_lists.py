"""Stripe's list, walked in either order and through every trap; its refusals, streams and subscriptions."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gapless_reconcilers.kit.contract import OWN_STREAM, MissingEvent, Secret, Window
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    HistoryExpired,
    OptionsInvalid,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    UnexpectedShape,
)
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
WINDOW = Window(start=NOW - timedelta(hours=1), end=NOW)
URL = "https://gapless.example/webhooks/stripe"


def provider(key: str = "rk_live_x", **options: Any) -> Stripe:
    return Stripe(StripeOptions(api_key=Secret(key), **options))


def item(key: str, age_s: int = 60, **changes: Any) -> dict[str, Any]:
    event = {
        "id": key, "object": "event", "created": NOW_S - age_s, "livemode": True, "type": "invoice.paid",
        "data": {"object": {"id": f"in_{key}", "object": "invoice"}},
    }  # fmt: skip
    return {**event, **changes}


def page_of(*items: dict[str, Any], has_more: bool = False) -> httpx.Response:
    body = {"object": "list", "data": list(items), "has_more": has_more, "url": "/v1/events"}
    return httpx.Response(200, json=body)


def walk(reader: Stripe, pages: list[httpx.Response]) -> tuple[list[str], list[str | None]]:
    keys: list[str] = []
    cursors: list[str | None] = []
    request: httpx.Request | None = reader.first_request(OWN_STREAM, WINDOW)
    for response in pages:
        assert request is not None
        cursors.append(request.url.params.get("starting_after"))
        page = reader.read_page(request, response, OWN_STREAM, WINDOW)
        keys += [event.key for event in page.events]
        request = page.next
    assert request is None
    return keys, cursors


def test_the_events_that_earn_reads_are_listed_alone() -> None:
    reader = provider(page_limit=10)
    request: httpx.Request | None = reader.grant_request("acct_1", WINDOW)
    for cursor, last in ((None, "d"), ("d", "c")):
        assert request is not None
        asked = dict(request.url.params)
        assert (asked["type"], asked["limit"], asked.get("starting_after")) == ("charge.succeeded", "100", cursor)
        assert request.headers["stripe-account"] == "acct_1"
        request = reader.read_page(request, page_of(item(last, 1), has_more=True), "acct_1", WINDOW).next


def test_newest_first_is_walked_to_its_end() -> None:
    pages = [page_of(item("d", 1), item("c", 2), has_more=True), page_of(item("b", 2), item("a", 3))]
    assert walk(provider(), pages) == (["d", "c", "b", "a"], [None, "c"])


def test_oldest_first_is_walked_to_its_end() -> None:
    pages = [page_of(item("a", 3), item("b", 2), has_more=True), page_of(item("c", 2), item("d", 1))]
    assert walk(provider(), pages) == (["a", "b", "c", "d"], [None, "b"])


def test_page_wholly_outside_the_window_does_not_end_the_walk() -> None:
    pages = [page_of(item("late", -10), has_more=True), page_of(item("a", 1))]
    assert walk(provider(), pages) == (["a"], [None, "late"])


def test_request_has_whole_seconds_and_only_widens_an_unaligned_window() -> None:
    ragged = Window(start=NOW + timedelta(milliseconds=500), end=NOW + timedelta(seconds=9, milliseconds=1))
    params = provider(page_limit=7).first_request(OWN_STREAM, ragged).url.params
    assert dict(params) == {"limit": "7", "created[gte]": str(NOW_S), "created[lt]": str(NOW_S + 10)}


def test_connected_account_is_asked_for_by_header_on_every_page() -> None:
    reader = provider(connect=True)
    first = reader.first_request("acct_1", WINDOW)
    page = reader.read_page(first, page_of(item("a"), has_more=True), "acct_1", WINDOW)
    assert page.next is not None
    assert [request.headers["stripe-account"] for request in (first, page.next)] == ["acct_1", "acct_1"]
    assert "stripe-account" not in reader.first_request(OWN_STREAM, WINDOW).headers
    assert [(event.stream, event.listable) for event in page.events] == [("acct_1", True)]


def test_next_request_repeats_nothing_that_the_engine_added() -> None:
    reader = provider()
    first = reader.first_request(OWN_STREAM, WINDOW)
    first.headers["Authorization"] = "Bearer rk_live_x"
    page = reader.read_page(first, page_of(item("a"), has_more=True), OWN_STREAM, WINDOW)
    assert page.next is not None
    assert "authorization" not in page.next.headers
    assert page.next.url.params["created[gte]"] == first.url.params["created[gte]"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"items": [], "has_more": False}, "data"),
        ({"data": None, "has_more": False}, "data"),
        ({"data": []}, "has_more"),
        ({"data": [], "has_more": "false"}, "has_more"),
        ({"data": [], "has_more": True}, "data"),
    ],
)
def test_page_of_another_shape_names_the_field(body: dict[str, Any], path: str) -> None:
    reader = provider()
    with pytest.raises(UnexpectedShape) as caught:
        reader.read_page(reader.first_request(OWN_STREAM, WINDOW), httpx.Response(200, json=body), OWN_STREAM, WINDOW)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"data": [item("a"), {**item("b"), "id": 5}], "has_more": False}, "data[1].id"),
        ({"data": [{"id": "a"}], "has_more": False}, "data[0].type"),
        ({"data": [item("a", created="2026-11-20")], "has_more": False}, "data[0].created"),
        ({"data": [item("")], "has_more": False}, "data[0]"),
        ({"data": [item("a"), item("b", created=-1)], "has_more": False}, "data[1]"),
        ({"data": [item("a", created=10**30)], "has_more": False}, "data[0]"),
    ],
)
def test_row_that_cannot_be_read_is_set_aside(body: dict[str, Any], path: str) -> None:
    reader, response = provider(), httpx.Response(200, json=body)
    page = reader.read_page(reader.first_request(OWN_STREAM, WINDOW), response, OWN_STREAM, WINDOW)
    (odd,) = page.unreadable
    assert odd.problem.startswith(f"{path} is ")
    assert (len(page.events), page.rows) == (len(body["data"]) - 1, len(body["data"]))


def test_page_that_ends_with_an_odd_row_is_continued() -> None:
    """Stripe is asked for what follows the last id that can be read: the odd row is shown again, and none is lost."""
    reader = provider()
    first = reader.first_request(OWN_STREAM, WINDOW)
    page = reader.read_page(first, page_of(item("a"), item("b"), {"id": None}, has_more=True), OWN_STREAM, WINDOW)
    assert page.next is not None
    assert page.next.url.params["starting_after"] == "b"
    only_id = reader.read_page(first, page_of(item("a"), {"id": "c"}, has_more=True), OWN_STREAM, WINDOW)
    assert only_id.next is not None
    assert only_id.next.url.params["starting_after"] == "c"


def test_cursor_that_does_not_move_is_refused() -> None:
    reader = provider()
    first = reader.first_request(OWN_STREAM, WINDOW)
    again = reader.read_page(first, page_of(item("a"), has_more=True), OWN_STREAM, WINDOW).next
    assert again is not None
    with pytest.raises(UnexpectedShape):
        reader.read_page(again, page_of(item("a"), has_more=True), OWN_STREAM, WINDOW)


def test_list_of_the_other_mode_is_refused_for_it_proves_nothing() -> None:
    reader = provider()
    response = page_of(item("a", livemode=False))
    with pytest.raises(OptionsInvalid, match="use a live api_key or change livemode"):
        reader.read_page(reader.first_request(OWN_STREAM, WINDOW), response, OWN_STREAM, WINDOW)


def test_detail_is_the_event_as_received() -> None:
    reader = provider()
    missing = MissingEvent(key="evt_a/b", type="charge.failed", occurred_at=WINDOW.start, stream="acct_1")
    assert reader.detail_request(missing).url.raw_path == b"/v1/events/evt_a%2Fb"
    response = httpx.Response(200, json=item("a"))
    event = reader.read_detail(missing, response)
    assert (event.key, event.stream, bytes(event.payload)) == ("a", "acct_1", response.content)


def refusal(status: int, code: str | None = None, param: str | None = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": {"code": code, "param": param, "message": "no"}}, headers=named)


@pytest.mark.parametrize(
    ("response", "wanted", "words"),
    [
        (refusal(401), CredentialsRejected, "401"),
        (refusal(403, "account_invalid"), CredentialsRejected, "403"),
        (refusal(404), OptionsInvalid, "404"),
        (refusal(404, "resource_missing", "id"), HistoryExpired, "30 days"),
        (refusal(400, "resource_missing", "starting_after"), HistoryExpired, "30 days"),
        (refusal(400, "parameter_unknown", "limit"), UnexpectedShape, "400"),
        (refusal(409), ProviderUnavailable, "409"),
        (refusal(400, stripe_should_retry="true"), ProviderUnavailable, "400"),
        (refusal(500), ProviderUnavailable, "500"),
        (refusal(429), RateLimited, "lock-timeout"),
        (refusal(429, stripe_rate_limited_reason="global-rate"), RateLimited, "global-rate"),
        (httpx.Response(404, text="<html>"), OptionsInvalid, "404"),
    ],
)
def test_refusal_is_judged_by_what_stripe_says(
    response: httpx.Response, wanted: type[ProviderError], words: str
) -> None:
    with pytest.raises(wanted, match=words) as caught:
        provider().judge(response, NOW)
    assert type(caught.value) is wanted


def test_limit_without_a_named_time_waits_two_seconds() -> None:
    for response, seconds in ((refusal(429), 2), (refusal(429, retry_after="9"), 9)):
        with pytest.raises(RateLimited) as caught:
            provider().judge(response, NOW)
        assert caught.value.retry_after == timedelta(seconds=seconds)


def test_accounts_are_streams_only_with_connect() -> None:
    assert provider().streams_request() is None
    reader = provider(connect=True)
    request = reader.streams_request()
    assert request is not None
    rows = {"data": [{"id": "acct_1"}, {"id": "acct_2"}], "has_more": True}
    page = reader.read_streams(request, httpx.Response(200, json=rows))
    assert page.streams == ["acct_1", "acct_2"]
    assert page.next is not None
    assert page.next.url.params["starting_after"] == "acct_2"
    last = reader.read_streams(page.next, httpx.Response(200, json={"data": [], "has_more": False}))
    assert (last.streams, last.next) == ([], None)
    with pytest.raises(UnexpectedShape):
        reader.read_streams(page.next, httpx.Response(200, json=rows))


def endpoints(*rows: dict[str, Any]) -> httpx.Response:
    full = [{"url": URL, "status": "enabled", "enabled_events": ["*"], "api_version": None, **row} for row in rows]
    return httpx.Response(200, json={"data": full, "has_more": False})


def test_enabled_endpoint_at_our_address_is_a_healthy_subscription() -> None:
    ours = {"enabled_events": ["invoice.paid", "charge.*"], "api_version": "2026-09-30.endive"}
    subscription = provider().read_subscription(endpoints({"url": "https://other.example"}, ours), URL)
    assert subscription.healthy
    assert subscription.types == ("charge.*", "invoice.paid")
    assert subscription.api_version == "2026-09-30.endive"
    assert not subscription.streams_covered


def test_endpoint_is_found_by_its_path_when_our_public_name_is_unknown() -> None:
    assert provider().read_subscription(endpoints({}), "http://127.0.0.1:8000/webhooks/stripe").healthy
    exact = endpoints({"url": "https://elsewhere.example/webhooks/stripe", "enabled_events": ["a"]}, {})
    assert provider().read_subscription(exact, URL).types == ("*",)


def test_connect_endpoint_beside_our_own_covers_the_streams() -> None:
    both = endpoints({"enabled_events": ["a"]}, {"enabled_events": ["b"], "application": "ca_1"})
    subscription = provider(connect=True).read_subscription(both, URL)
    assert (subscription.types, subscription.streams_covered) == (("a", "b"), True)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (endpoints({"status": "disabled"}), "the endpoint at /webhooks/stripe is disabled"),
        (endpoints({"url": "https://gapless.example/other"}), "no endpoint has the path /webhooks/stripe"),
        (endpoints(), "no endpoint has the path /webhooks/stripe"),
    ],
)
def test_disabled_or_absent_endpoint_is_unhealthy_with_the_reason(response: httpx.Response, reason: str) -> None:
    subscription = provider().read_subscription(response, URL)
    assert not subscription.healthy
    assert reason in subscription.reason


def test_account_is_named_and_its_mode_is_the_keys() -> None:
    account = provider("sk_test_x", livemode=False).read_account(httpx.Response(200, json={"id": "acct_1"}))
    assert (account.fingerprint, account.livemode) == ("acct_1", False)
    assert provider("whatever").read_account(httpx.Response(200, json={"id": "acct_1"})).livemode is None
    with pytest.raises(UnexpectedShape):
        provider().read_account(httpx.Response(200, json={"object": "account"}))


@pytest.mark.parametrize(
    ("key", "livemode", "words"),
    [
        ("sk_test_x", True, "api_key is a test key and livemode is true; use a live key or set livemode = false"),
        ("rk_live_x", False, "api_key is a live key and livemode is false; use a test key or set livemode = true"),
        ("pk_live_x", True, "none of the beginnings"),
    ],
)
def test_key_of_the_other_mode_is_a_problem(key: str, *, livemode: bool, words: str) -> None:
    (problem,) = provider(key, livemode=livemode).option_problems()
    assert words in problem
    assert "live_x" not in problem


def test_options_that_fit_have_no_problem() -> None:
    assert provider("rk_live_x", webhook_secret=(Secret("whsec_a"),)).option_problems() == []
    assert provider("sk_test_x", livemode=False).option_problems() == []
    (problem,) = provider(webhook_secret=(Secret("wh_a"),)).option_problems()
    assert "whsec_" in problem


def test_versions_of_payload_and_endpoint_are_named() -> None:
    assert provider().payload_version(json.dumps({"api_version": "2017-08-15"}).encode()) == "2017-08-15"
    assert provider().payload_version(b"{}") is None
    assert provider(api_version="2026-09-30.endive").endpoint_version() == "2026-09-30.endive"


def test_budget_is_shared_by_sources_with_one_key_and_never_shows_it() -> None:
    assert provider("rk_live_a").budget_scope() == provider("rk_live_a", livemode=False).budget_scope()
    assert provider("rk_live_a").budget_scope() != provider("rk_live_b").budget_scope()
    assert "rk_live_a" not in provider("rk_live_a").budget_scope()
