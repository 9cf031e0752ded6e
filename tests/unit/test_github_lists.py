"""GitHub's log of deliveries: the walk, what stands in its way, and what the options must name."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gapless_reconcilers.kit.auth import AppAuth
from gapless_reconcilers.kit.contract import MissingEvent, Remedy, Secret, Window
from gapless_reconcilers.kit.errors import CredentialsRejected, OptionsInvalid, RateLimited, UnexpectedShape
from gapless_reconcilers.providers.github import GitHub, GitHubOptions

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WINDOW = Window(start=NOW - timedelta(hours=1), end=NOW)
MISSING = MissingEvent(key="7:g-1", type="push", occurred_at=NOW, stream="", ref="12345678901234567")


def hook(**options: Any) -> GitHub:
    known = {"token": Secret("ghp_x"), "repository": "acme/shop", "hook_id": 7, **options}
    return GitHub(GitHubOptions(**known))


def row(guid: str, minutes_ago: float, **changes: Any) -> dict[str, Any]:
    at = (NOW - timedelta(minutes=minutes_ago)).isoformat()
    return {"id": 12345678901234567, "guid": guid, "delivered_at": at, "event": "push", "action": None, **changes}


def page(provider: GitHub, rows: Any, link: str | None = None, request: httpx.Request | None = None) -> Any:
    request = request or provider.first_request("", WINDOW)
    headers = {} if link is None else {"Link": f'<{link}>; rel="next"'}
    return provider.read_page(request, httpx.Response(200, json=rows, headers=headers, request=request), "", WINDOW)


def test_the_walk_ends_below_the_window_whatever_the_link_says() -> None:
    more = "https://api.github.com/x?cursor=v1_2"
    assert page(hook(), [row("a", 5), row("b", 59)], more).next is not None
    one_is_old = page(hook(), [row("a", 5), row("b", 600)], more)
    assert (one_is_old.next is None, [event.key for event in one_is_old.events]) == (False, ["7:a"])
    assert page(hook(), [row("a", 600), row("b", 601)], more).next is None


def test_only_the_cursor_of_the_link_is_taken_so_that_no_token_goes_elsewhere() -> None:
    following = page(hook(), [row("a", 5)], "https://evil.example/steal?cursor=v1_2").next
    assert str(following.url) == "https://api.github.com/repos/acme/shop/hooks/7/deliveries?per_page=100&cursor=v1_2"


@pytest.mark.parametrize("link", ["https://api.github.com/x", "https://api.github.com/x?cursor=", "http://[::1"])
def test_a_next_page_without_a_cursor_is_refused(link: str) -> None:
    with pytest.raises(UnexpectedShape, match="Link"):
        page(hook(), [row("a", 5)], link)


def test_an_answer_that_is_no_page_is_refused() -> None:
    with pytest.raises(UnexpectedShape, match="body"):
        page(hook(), {"deliveries": []})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ([{}], r"\[0\]"),
        ([row("a", 1, delivered_at="2026-11-20T12:00:00")], r"\[0\].delivered_at"),
        ([row("a", 1), row("b", 1, id="x")], r"\[1\].id"),
        ([row("a", 1), row("b\0", 1)], r"\[1\] is not recordable: key holds a NUL"),
    ],
)
def test_a_row_of_another_shape_is_set_aside_with_its_path(rows: Any, path: str) -> None:
    (odd,) = page(hook(), rows).unreadable
    assert re.match(path, odd.problem)


def test_large_ids_keep_all_their_digits() -> None:
    (event,) = page(hook(), [row("a", 1)]).events
    assert event.ref == "12345678901234567"
    assert str(hook().detail_request(MISSING).url).endswith("/deliveries/12345678901234567")


def test_a_detail_of_another_event_is_refused() -> None:
    detail = {**row("other", 1), "request": {"payload": {}}}
    with pytest.raises(UnexpectedShape, match="guid"):
        hook().read_detail(MISSING, httpx.Response(200, json=detail))


def test_the_other_remedy_is_to_ask_for_it_again() -> None:
    provider = hook(remedy="redelivery", history=timedelta(days=7))
    assert (provider.capabilities.remedy, provider.capabilities.history) == (Remedy.REDELIVERY, timedelta(days=7))
    request = provider.redelivery_request(MISSING)
    assert (request.method, request.url.path.rpartition("/hooks")[2]) == (
        "POST",
        "/7/deliveries/12345678901234567/attempts",
    )
    assert GitHub.capabilities.history == timedelta(days=3)


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize(
    ("headers", "message", "wait_s"),
    [
        ({"retry-after": "30"}, "", 30),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 90)}, "", 90),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, "", 1),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 12}, "", 3600),
        ({}, "You have exceeded a secondary rate limit.", 60),
    ],
)
def test_a_limit_says_how_long_to_wait(status: int, headers: dict[str, str], message: str, wait_s: int) -> None:
    response = httpx.Response(status, json={"message": message}, headers=headers)
    with pytest.raises(RateLimited) as limited:
        hook().judge(response, NOW)
    assert limited.value.retry_after == timedelta(seconds=wait_s)


def test_a_403_that_is_no_limit_is_a_missing_permission() -> None:
    for body in (b'{"message":"Resource not accessible by personal access token"}', b"<html>", b"[]"):
        with pytest.raises(CredentialsRejected):
            hook().judge(httpx.Response(403, content=body, headers={"x-ratelimit-remaining": "12"}), NOW)
    with pytest.raises(OptionsInvalid):
        hook().judge(httpx.Response(404, content=b"{}"), NOW)


def told(**changes: Any) -> httpx.Response:
    config = {"url": "https://hooks.example/webhooks/acme"}
    return httpx.Response(200, json={"id": 7, "active": True, "events": ["issues"], "config": config, **changes})


def test_the_hook_is_healthy_if_it_is_active_and_sends_to_us() -> None:
    url = "https://hooks.example/webhooks/acme"
    subscription = hook().read_subscription(told(), url)
    assert (subscription.healthy, subscription.id) == (True, "7")
    assert subscription.types == ("issues", "issues.*", "ping", "ping.*")
    assert hook().read_subscription(told(events=["*"]), url).types == ("*",)
    assert hook().read_subscription(told(active=False), url).reason == "the hook is not active"
    assert not hook().read_subscription(told(config={"url": "https://hooks.example/other"}), url).healthy
    with pytest.raises(UnexpectedShape, match="active"):
        hook().read_subscription(httpx.Response(200, json={"id": 7, "events": [], "config": {}}), url)


def test_a_hook_is_made_with_our_secret_and_switched_on_again() -> None:
    request = hook().register_request("https://hooks.example/w", ["issues.*", "issues.opened", "push"], Secret("s"))
    assert (request.method, request.url.path) == ("POST", "/repos/acme/shop/hooks")
    body = json.loads(request.content)
    assert (body["events"], body["config"]["secret"], body["active"]) == (["issues", "push"], "s", True)
    assert hook().read_registration(told(id=9)).id == "9"
    subscription = hook().read_subscription(told(active=False), "https://hooks.example/webhooks/acme")
    mended = hook().repair_request(subscription, "")
    assert mended is not None
    assert (mended.method, mended.url.path, mended.content) == ("PATCH", "/repos/acme/shop/hooks/7", b'{"active":true}')


def test_an_organisation_and_an_app_have_their_own_addresses() -> None:
    org = hook(repository=None, organization="acme")
    assert org.first_request("", WINDOW).url.path == "/orgs/acme/hooks/7/deliveries"
    app = GitHub(GitHubOptions(app_id="9", app_private_key=Secret("pem")))
    assert app.first_request("", WINDOW).url.path == "/app/hook/deliveries"
    assert app.subscription_request().url.path == "/app/hook/config"
    answer = httpx.Response(200, json={"url": "https://hooks.example/webhooks/acme"})
    subscription = app.read_subscription(answer, "https://hooks.example/webhooks/acme")
    assert (subscription.healthy, subscription.types, app.repair_request(subscription, "")) == (True, None, None)
    assert [event.key for event in page(app, [row("a", 1)]).events] == ["app:a"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"repository": None}, "name one of repository, organization and app_private_key"),
        ({"organization": "acme"}, "name one of"),
        ({"hook_id": None}, "hook_id and token are needed"),
        ({"token": None}, "hook_id and token are needed"),
        ({"repository": "shop"}, "wanted owner/name"),
        ({"repository": None, "app_private_key": Secret("x")}, "app_id is needed"),
    ],
)
def test_options_that_name_no_hook_are_told(options: dict[str, Any], problem: str) -> None:
    assert any(problem in each for each in hook(**options).option_problems())
    assert hook().option_problems() == []


def test_an_app_shows_a_token_that_its_key_signed_and_no_clock_of_ours_makes_it_early() -> None:
    key = generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    auth = AppAuth("9", Secret(pem), clock=lambda: NOW)
    head, claims, signature = (part + "=" * (-len(part) % 4) for part in auth.token().split("."))
    message = ".".join(auth.token().split(".")[:2]).encode()
    key.public_key().verify(base64.urlsafe_b64decode(signature), message, PKCS1v15(), SHA256())
    assert json.loads(base64.urlsafe_b64decode(head))["alg"] == "RS256"
    now = int(NOW.timestamp())
    assert json.loads(base64.urlsafe_b64decode(claims)) == {"iat": now - 60, "exp": now + 540, "iss": "9"}
    assert "PRIVATE" not in repr(auth)
    with pytest.raises(CredentialsRejected, match="no PEM"):
        AppAuth("9", Secret("nonsense")).token()
