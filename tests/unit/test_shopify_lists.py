"""Shopify's lists, walked past the depth of one query; its refusals inside a 200, its subscriptions and scopes."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gapless_reconcilers.kit.contract import OWN_STREAM, Secret, Subscription, Window
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    UnexpectedShape,
)
from gapless_reconcilers.providers.shopify import Shopify, ShopifyOptions
from gapless_reconcilers.providers.shopify.listing import DEPTH

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WINDOW = Window(start=NOW - timedelta(hours=1), end=NOW)
URL = "https://gapless.example/webhooks/acme"
UPDATES = ("ORDERS_UPDATED", "PRODUCTS_UPDATE", "CUSTOMERS_UPDATE")


def provider(**options: Any) -> Shopify:
    return Shopify(ShopifyOptions(**{"shop": "acme.myshopify.com", "access_token": Secret("shpat_x"), **options}))


def node(number: int, age_s: float = 60, **changes: Any) -> dict[str, Any]:
    at = (NOW - timedelta(seconds=age_s)).isoformat().replace("+00:00", "Z")
    return {"id": f"gid://shopify/Order/{number}", "updatedAt": at, **changes}


def page_of(*nodes: dict[str, Any], after: str | None = None, **more: Any) -> httpx.Response:
    info = {"hasNextPage": after is not None, "endCursor": after}
    return httpx.Response(200, json={"data": {"orders": {"nodes": list(nodes), "pageInfo": info}}, **more})


def variables(request: httpx.Request | None) -> dict[str, Any]:
    assert request is not None
    asked: dict[str, Any] = json.loads(request.content)["variables"]
    return asked


def bounds(request: httpx.Request | None) -> tuple[str, str]:
    query = variables(request)["query"].split("'")
    return query[1], query[3]


def sent(request: httpx.Request) -> str:
    """The address as it goes over the wire."""
    return request.url.raw_path.decode()


def test_pages_are_followed_by_cursor_within_the_same_bounds() -> None:
    reader = provider()
    first = reader.first_request("orders", WINDOW)
    page = reader.read_page(first, page_of(node(1), after="c1"), "orders", WINDOW)
    assert page.next is not None
    assert (variables(first).get("after"), variables(page.next)["after"]) == (None, "c1")
    assert bounds(first) == bounds(page.next) == ("2026-11-20T11:00:00Z", "2026-11-20T12:00:00Z")
    assert sent(first) == sent(page.next) == "/admin/api/2026-10/graphql.json"
    last = reader.read_page(page.next, page_of(node(2)), "orders", WINDOW)
    assert last.next is None


def test_listed_object_is_a_state_named_by_id_and_version() -> None:
    item = node(1, 10, name="#1001")
    response = page_of(item)
    (state,) = provider().read_page(provider().first_request("orders", WINDOW), response, "orders", WINDOW).events
    assert (state.key, state.type) == ("gid://shopify/Order/1@2026-11-20T11:59:50Z", "orders.state")
    assert (state.object_key, state.object_version) == ("gid://shopify/Order/1", 1_795_175_990_000_000)
    assert (state.stream, state.listable) == ("orders", True)
    assert json.loads(bytes(state.payload)) == item


def test_object_that_changed_while_it_was_listed_is_left_to_its_own_window() -> None:
    response = page_of(node(1, 1), node(2, -5), node(3, 0), node(4, 3601))
    (state,) = provider().read_page(provider().first_request("orders", WINDOW), response, "orders", WINDOW).events
    assert state.object_key == "gid://shopify/Order/1"


def test_request_has_whole_seconds_and_only_widens_an_unaligned_window() -> None:
    ragged = Window(start=NOW + timedelta(milliseconds=500), end=NOW + timedelta(seconds=9, milliseconds=1))
    first = provider(page_limit=7).first_request("products", ragged)
    assert bounds(first) == ("2026-11-20T12:00:00Z", "2026-11-20T12:00:10Z")
    assert variables(first)["first"] == 7


def walk_to_depth(reader: Shopify, ages: list[float]) -> httpx.Request | None:
    """The request that follows the pages that fill one query, each with nodes of the ages `ages`."""
    request: httpx.Request | None = reader.first_request("orders", WINDOW)
    for number in range(DEPTH // len(ages)):
        assert request is not None
        assert number == 0 or variables(request)["after"] == f"c{number - 1}"
        nodes = [node(index, age) for index, age in enumerate(ages)]
        request = reader.read_page(request, page_of(*nodes, after=f"c{number}"), "orders", WINDOW).next
    return request


def test_walk_deeper_than_one_query_begins_anew_at_the_last_time_it_saw() -> None:
    reader = provider(page_limit=250)
    request = walk_to_depth(reader, [600.0] * 200 + [500.0] * 50)
    assert bounds(request) == ("2026-11-20T11:50:00Z", "2026-11-20T12:00:00Z")
    assert "after" not in variables(request)
    assert request is not None
    page = reader.read_page(request, page_of(node(1, 590), after="d1"), "orders", WINDOW)
    assert page.next is not None
    assert (bounds(page.next)[0], variables(page.next)["after"]) == ("2026-11-20T11:50:00Z", "d1")


def test_how_deep_a_walk_is_survives_its_request_and_is_never_sent() -> None:
    reader = provider(page_limit=250)
    first = reader.first_request("orders", WINDOW)
    request = reader.read_page(first, page_of(*[node(1)] * 250, after="c1"), "orders", WINDOW).next
    assert request is not None
    assert request.url.fragment == "since=2026-11-20T11:00:00Z&read=250"
    assert "#" not in sent(request)
    again = httpx.Request("POST", str(request.url), headers=request.headers, content=request.content)
    for asked in (request, again):
        following = reader.read_page(asked, page_of(*[node(1)] * 250, after="c2"), "orders", WINDOW).next
        assert following is not None
        assert following.url.fragment == "since=2026-11-20T11:00:00Z&read=500"


def test_more_objects_of_one_second_than_a_query_can_show_are_refused_and_never_skipped() -> None:
    reader = provider(page_limit=250)
    with pytest.raises(UnexpectedShape, match="at most 25000 in a second"):
        walk_to_depth(reader, [3600.0] * 250)


DONE = {"hasNextPage": False}
MORE = {"hasNextPage": True, "endCursor": "c"}


def orders(nodes: object, info: object = DONE) -> dict[str, Any]:
    return {"data": {"orders": {"nodes": nodes, "pageInfo": info}}}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"data": None}, "data"),
        ({}, "data"),
        ({"data": {}}, "data.orders"),
        ({"data": {"orders": None}}, "data.orders"),
        ({"data": {"orders": {"edges": [], "pageInfo": DONE}}}, "data.orders.nodes"),
        ({"data": {"orders": {"nodes": []}}}, "data.orders.pageInfo"),
        (orders([], {"hasNextPage": "no"}), "data.orders.pageInfo.hasNextPage"),
        (orders([], MORE), "data.orders.pageInfo"),
        (orders([node(1)], {"hasNextPage": True}), "data.orders.pageInfo"),
    ],
)
def test_page_of_another_shape_names_the_field(body: dict[str, Any], path: str) -> None:
    reader = provider()
    with pytest.raises(UnexpectedShape) as caught:
        reader.read_page(reader.first_request("orders", WINDOW), httpx.Response(200, json=body), "orders", WINDOW)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (orders([node(1), {"id": "x"}]), "data.orders.nodes[1].updatedAt"),
        (orders([None]), "data.orders.nodes[0]"),
        (orders([node(1, updatedAt="2026-11-20T11:00:00")]), "data.orders.nodes[0].updatedAt"),
        (orders([node(1, updatedAt="0001-01-01T00:00:00+10:00")]), "data.orders.nodes[0]"),
        (orders([node(1, id="x" * 600)]), "data.orders.nodes[0]"),
    ],
)
def test_row_that_cannot_be_read_is_set_aside(body: dict[str, Any], path: str) -> None:
    reader, response = provider(), httpx.Response(200, json=body)
    page = reader.read_page(reader.first_request("orders", WINDOW), response, "orders", WINDOW)
    (odd,) = page.unreadable
    assert odd.problem.startswith(f"{path} is ")


def test_filter_that_shopify_passed_over_is_no_list_of_the_window() -> None:
    reader = provider()
    first = reader.first_request("orders", WINDOW)
    warning = {"field": "updated_at", "message": "Invalid search field."}
    passed_over = page_of(node(1), extensions={"search": [{"path": ["orders"], "warnings": [warning]}]})
    with pytest.raises(UnexpectedShape) as caught:
        reader.read_page(first, passed_over, "orders", WINDOW)
    assert caught.value.path == "extensions.search"
    understood = page_of(node(1), extensions={"search": [{"path": ["orders"], "warnings": []}]})
    assert reader.read_page(first, understood, "orders", WINDOW).events


def test_cursor_that_does_not_move_is_refused() -> None:
    reader = provider()
    first = reader.first_request("orders", WINDOW)
    again = reader.read_page(first, page_of(node(1), after="c1"), "orders", WINDOW).next
    assert again is not None
    with pytest.raises(UnexpectedShape):
        reader.read_page(again, page_of(node(1), after="c1"), "orders", WINDOW)


def test_own_stream_and_a_resource_left_out_list_nothing_and_still_prove_the_token() -> None:
    reader = provider(resources=("orders",))
    shop = httpx.Response(200, json={"data": {"shop": {"id": "gid://shopify/Shop/1"}}})
    for stream in (OWN_STREAM, "products"):
        first = reader.first_request(stream, WINDOW)
        assert json.loads(first.content)["query"] == "{ shop { id } }"
        page = reader.read_page(first, shop, stream, WINDOW)
        assert (page.events, page.next) == ([], None)
        with pytest.raises(UnexpectedShape):
            reader.read_page(first, httpx.Response(200, json={"data": {}}), stream, WINDOW)


def errors(*codes: str | None, cost: dict[str, Any] | None = None) -> httpx.Response:
    rows = [
        {"message": f"about {code}", "extensions": {"code": code}} if code else {"message": "syntax"} for code in codes
    ]
    return httpx.Response(200, json={"errors": rows, **({"extensions": {"cost": cost}} if cost else {})})


@pytest.mark.parametrize(
    ("response", "wanted", "words"),
    [
        (errors("THROTTLED"), RateLimited, "throttled"),
        (errors("ACCESS_DENIED"), CredentialsRejected, "about ACCESS_DENIED"),
        (errors(None, "ACCESS_DENIED"), CredentialsRejected, "about ACCESS_DENIED"),
        (errors("SHOP_INACTIVE"), OptionsInvalid, "inactive"),
        (errors("MAX_COST_EXCEEDED"), OptionsInvalid, "page_limit"),
        (errors("INTERNAL_SERVER_ERROR"), ProviderUnavailable, "INTERNAL"),
        (errors(None), UnexpectedShape, "errors.0. is 'syntax'"),
        (errors("undefinedField"), UnexpectedShape, "errors.0. is 'about undefinedField'"),
        (httpx.Response(401, json={"errors": "[API] Invalid API key or access token"}), CredentialsRejected, "401"),
        (httpx.Response(402), OptionsInvalid, "frozen"),
        (httpx.Response(423), OptionsInvalid, "frozen"),
        (httpx.Response(404), OptionsInvalid, "404"),
        (httpx.Response(429), RateLimited, "429"),
        (httpx.Response(503), ProviderUnavailable, "503"),
        (httpx.Response(301), UnexpectedShape, "301"),
    ],
)
def test_refusal_is_judged_by_what_shopify_says(
    response: httpx.Response, wanted: type[ProviderError], words: str
) -> None:
    with pytest.raises(wanted, match=words) as caught:
        provider().judge(response, NOW)
    assert type(caught.value) is wanted


@pytest.mark.parametrize(
    ("available", "rate", "wait_s"),
    [
        (666, 50, 1.72),
        (0, 100, 7.52),
        (752, 50, 1.0),
        (2000, 50, 1.0),
        (0, 0, 2.0),
        (0, 0.01, 3600.0),
        (-10, 50, 15.24),
    ],
)
def test_throttled_query_waits_until_the_bucket_holds_its_cost(available: float, rate: float, wait_s: float) -> None:
    throttle = {"maximumAvailable": 1000.0, "currentlyAvailable": available, "restoreRate": rate}
    cost = {"requestedQueryCost": 752, "actualQueryCost": None, "throttleStatus": throttle}
    with pytest.raises(RateLimited) as caught:
        provider().judge(errors("THROTTLED", cost=cost), NOW)
    assert caught.value.retry_after == timedelta(seconds=wait_s)


def test_answer_without_errors_is_left_to_its_reader() -> None:
    for response in (page_of(), httpx.Response(200, text="<html>"), httpx.Response(200, json={"errors": []})):
        provider().judge(response, NOW)


def test_history_is_that_of_orders_unless_all_of_them_are_shown() -> None:
    assert provider().capabilities.history == timedelta(days=60)
    assert provider(read_all_orders=True).capabilities.history is None
    assert provider(resources=("products", "customers")).capabilities.history is None


def scopes(*handles: str) -> httpx.Response:
    rows = [{"handle": handle} for handle in handles]
    return httpx.Response(200, json={"data": {"currentAppInstallation": {"accessScopes": rows}}})


def test_streams_are_the_resources_and_a_history_beyond_the_scopes_is_refused() -> None:
    reader = provider(resources=("orders", "products"))
    request = reader.streams_request()
    page = reader.read_streams(request, scopes("read_orders"))
    assert (page.streams, page.next) == (["orders", "products"], None)
    generous = provider(read_all_orders=True)
    with pytest.raises(OptionsInvalid, match="lacks that scope"):
        generous.read_streams(request, scopes("read_orders"))
    assert generous.read_streams(request, scopes("read_orders", "read_all_orders")).streams
    with pytest.raises(UnexpectedShape):
        reader.read_streams(request, httpx.Response(200, json={"data": {"currentAppInstallation": {}}}))


def rows(*topics: str, more: bool = False, **changes: Any) -> httpx.Response:
    nodes = [
        {"id": f"gid://shopify/WebhookSubscription/{number}", "topic": topic, "uri": URL, "format": "JSON",
         "filter": "", "includeFields": [], "apiVersion": {"handle": "2026-10"}, **changes}
        for number, topic in enumerate(topics)
    ]  # fmt: skip
    found = {"nodes": nodes, "pageInfo": {"hasNextPage": more}}
    return httpx.Response(200, json={"data": {"webhookSubscriptions": found}})


def subscription(response: httpx.Response, url: str = URL, **options: Any) -> Subscription:
    return provider(**options).read_subscription(response, url)


def test_subscriptions_to_every_update_are_healthy_and_cover_the_streams() -> None:
    told = subscription(rows(*UPDATES, "ORDERS_PARTIALLY_FULFILLED", "APP_UNINSTALLED"))
    assert (told.healthy, told.own_covered, told.streams_covered) == (True, True, True)
    assert told.types == (
        "app/uninstalled", "customers.state", "customers/update", "orders.state", "orders/partially_fulfilled",
        "orders/updated", "products.state", "products/update",
    )  # fmt: skip
    assert (told.api_version, told.id) == ("2026-10", "gid://shopify/WebhookSubscription/0")


@pytest.mark.parametrize(
    ("enum", "topic"),
    [
        ("CUSTOMERS_MARKETING_CONSENT_UPDATE", "customers_marketing_consent/update"),
        ("CUSTOMERS_EMAIL_MARKETING_CONSENT_UPDATE", "customers_email_marketing_consent/update"),
        ("CUSTOMERS_DISABLE", "customers/disable"),
        ("INVENTORY_LEVELS_UPDATE", "inventory_levels/update"),
        ("SHOP_UPDATE", "shop/update"),
    ],
)
def test_topic_is_read_as_its_header_writes_it(enum: str, topic: str) -> None:
    assert topic in (subscription(rows(*UPDATES, enum)).types or ())


def test_subscription_is_found_by_its_path_when_our_public_name_is_unknown() -> None:
    assert subscription(rows(*UPDATES), "http://127.0.0.1:8000/webhooks/acme").healthy
    assert subscription(rows(*UPDATES), "/webhooks/acme").healthy
    assert not subscription(rows(*UPDATES), "https://gapless.example/webhooks/other").healthy


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (rows(), "any topic|customers/update, orders/updated, products/update"),
        (rows(*UPDATES[:2]), "for customers/update"),
        (rows(*UPDATES, filter="total_price:>100"), "orders/updated"),
        (rows(*UPDATES, format="XML"), "orders/updated"),
        (rows(*UPDATES, includeFields=["id", "note"]), "orders/updated"),
        (rows("ORDERS_PAID", "APP_UNINSTALLED"), "customers/update, orders/updated, products/update"),
    ],
)
def test_subscription_that_vanished_or_is_not_whole_is_unhealthy_and_takes_no_type_away(
    response: httpx.Response, words: str
) -> None:
    told = subscription(response)
    assert (told.healthy, told.types) == (False, None)
    assert words.rpartition("|")[2] in told.reason
    assert "subscriptions_in_app_config" in told.reason


def test_fields_that_suffice_make_a_whole_subscription() -> None:
    assert subscription(rows(*UPDATES, includeFields=["id", "updated_at", "note"])).healthy


def test_subscriptions_of_the_app_configuration_are_unknown_and_not_unhealthy() -> None:
    with pytest.raises(UnexpectedShape, match=r"shopify\.app\.toml"):
        subscription(rows(), subscriptions_in_app_config=True)


def test_more_subscriptions_than_a_page_are_unknown() -> None:
    with pytest.raises(UnexpectedShape):
        subscription(rows(*UPDATES, more=True))


def test_subscriptions_are_made_in_one_request() -> None:
    reader = provider(resources=("products",))
    body = json.loads(reader.register_request(URL, [], Secret("unused")).content)
    assert body["variables"] == {"at": {"uri": URL, "format": "JSON"}}
    assert [word.split(")")[0].split(",")[0] for word in body["query"].split("(topic: ")[1:]] == [
        "PRODUCTS_UPDATE", "PRODUCTS_CREATE", "PRODUCTS_DELETE",
    ]  # fmt: skip
    assert body["query"].count("webhookSubscriptionCreate") == 3


def test_states_are_no_topics_and_patterns_stand_for_the_usual_ones() -> None:
    reader = provider()
    query = json.loads(
        reader.register_request(URL, ["orders.state", "products/*", "app/uninstalled"], Secret("")).content
    )
    topics = [word.split(",")[0] for word in query["query"].split("(topic: ")[1:]]
    assert topics == ["PRODUCTS_UPDATE", "PRODUCTS_CREATE", "PRODUCTS_DELETE", "APP_UNINSTALLED"]
    for types in (["orders.state"], ["orders/updated) { x }"]):
        with pytest.raises(OptionsInvalid):
            reader.register_request(URL, types, Secret(""))


def made(*found: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"data": {f"t{number}": row for number, row in enumerate(found)}})


def test_registration_is_the_first_that_was_made_and_a_refusal_is_named() -> None:
    new = {"webhookSubscription": {"id": "gid://shopify/WebhookSubscription/9"}, "userErrors": []}
    taken = {"webhookSubscription": None, "userErrors": [{"message": "Address for this topic has already been taken"}]}
    refused = {"webhookSubscription": None, "userErrors": [{"message": "Address is not allowed"}]}
    assert provider().read_registration(made(taken, new)).id == "gid://shopify/WebhookSubscription/9"
    assert provider().read_registration(made(taken)).id == "unchanged"
    with pytest.raises(OptionsInvalid, match="not allowed"):
        provider().read_registration(made(new, refused))
    with pytest.raises(UnexpectedShape) as caught:
        provider().read_registration(made({"webhookSubscription": None}))
    assert caught.value.path == "data.t0.userErrors"


def test_account_is_the_shop() -> None:
    response = httpx.Response(200, json={"data": {"shop": {"id": "gid://shopify/Shop/1"}}})
    account = provider().read_account(response)
    assert (account.fingerprint, account.livemode) == ("gid://shopify/Shop/1", None)
    with pytest.raises(UnexpectedShape):
        provider().read_account(httpx.Response(200, json={"data": {"shop": None}}))


def test_token_is_added_when_the_request_leaves_and_shown_nowhere() -> None:
    auth = provider().auth()
    request = next(auth.auth_flow(provider().account_request()))
    assert request.headers["x-shopify-access-token"] == "shpat_x"
    assert "shpat_x" not in repr(auth)


GRANT: dict[str, Any] = {"access_token": None, "client_id": "app", "client_secret": (Secret("shpss_x"), Secret("old"))}


def conversation(reader: Shopify, *answers: httpx.Response, times: int = 1) -> list[httpx.Request]:
    """All that is sent for some requests of `reader`, each answered with the next of `answers`."""
    asked, left = list[httpx.Request](), list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(httpx.Request(request.method, request.url, headers=request.headers, content=request.content))
        return left.pop(0)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        for _ in range(times):
            client.send(reader.account_request(), auth=reader.auth())
    assert not left
    return asked


def granted(token: str) -> httpx.Response:
    return httpx.Response(200, json={"access_token": token, "scope": "read_orders", "expires_in": 86399})


def test_token_is_asked_for_once_and_anew_when_it_has_run_out() -> None:
    fine, refused = httpx.Response(200), httpx.Response(401)
    asked = conversation(provider(**GRANT), granted("one"), fine, fine, refused, granted("two"), fine, times=3)
    assert [request.headers.get("x-shopify-access-token") for request in asked] == [
        None, "one", "one", "one", None, "two",
    ]  # fmt: skip
    assert str(asked[0].url) == "https://acme.myshopify.com/admin/oauth/access_token"
    assert asked[0].content == b"grant_type=client_credentials&client_id=app&client_secret=shpss_x"


def test_token_that_is_refused_twice_or_never_given_is_an_error_that_shows_no_secret() -> None:
    refused = httpx.Response(401)
    assert len(conversation(provider(**GRANT), granted("one"), refused, granted("two"), refused)) == 4
    assert len(conversation(provider(), refused)) == 1
    for status, wanted in ((400, CredentialsRejected), (401, CredentialsRejected), (500, ProviderUnavailable)):
        with pytest.raises(wanted) as caught:
            conversation(provider(**GRANT), httpx.Response(status, text="shpss_x"))
        assert "shpss_x" not in str(caught.value)
    with pytest.raises(UnexpectedShape):
        conversation(provider(**GRANT), httpx.Response(200, json={}))
    with pytest.raises(CredentialsRejected, match="neither"):
        conversation(provider(access_token=None))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"access_token": None}, "give either"),
        ({"client_id": "app", "client_secret": (Secret("x"),)}, "give either"),
        ({"access_token": None, "client_id": "app"}, "give either"),
        ({"shop": "acme.example.com"}, "wanted the permanent name"),
        ({"shop": "https://acme.myshopify.com"}, "wanted the permanent name"),
        ({"api_version": "2026-11"}, "wanted one such as 2026-10"),
        ({"resources": ("orders", "orders")}, "name each once"),
        ({"resources": ("products",), "read_all_orders": True}, "drop one of the two"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], words: str) -> None:
    (problem,) = provider(**options).option_problems()
    assert words in problem


def test_options_that_fit_have_no_problem() -> None:
    assert provider().option_problems() == []
    assert provider(api_version="unstable").option_problems() == []
    assert provider(**GRANT).option_problems() == []
    assert provider(client_secret=(Secret("x"),)).option_problems() == []
