"""Credentials of a declared list: where they stand while a request is sent, and nowhere else."""

from typing import Any
from urllib.parse import parse_qs

import httpx
from declared import WINDOW, build, changed

from gapless_reconcilers.kit.contract import Secret


def sent(auth: dict[str, Any], answers: list[httpx.Response] | None = None) -> list[httpx.Request]:
    """The requests that are sent for a page of the list, as the vendor sees them; copies, because they are changed."""
    provider = build(changed("auth", auth))
    seen: list[httpx.Request] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        seen.append(httpx.Request(request.method, request.url, headers=request.headers, content=request.content))
        return answers[len(seen) - 1] if answers else httpx.Response(200, json={})

    with httpx.Client(transport=httpx.MockTransport(vendor)) as client:
        request = provider.first_request("", WINDOW)
        client.send(request, auth=provider.auth())
        assert "do_not_show" not in str(request.url) + repr(provider.auth())
    return seen


def test_tokens_in_the_query_are_there_only_while_a_request_is_sent() -> None:
    auth = {"type": "query", "name": "token", "token": Secret("t_do_not_show"), "key_name": "key", "key": Secret("k")}
    (request,) = sent(auth)
    assert (request.url.params["token"], request.url.params["key"]) == ("t_do_not_show", "k")
    assert request.url.params["since"] == "2026-11-20T11:20:00Z"


def test_a_word_may_stand_before_a_token() -> None:
    auth = {"type": "header", "name": "Authorization", "prefix": "SSWS ", "token": Secret("o_do_not_show")}
    assert sent(auth)[0].headers["authorization"] == "SSWS o_do_not_show"


def test_the_name_may_be_the_same_for_all_accounts() -> None:
    auth = {"type": "basic", "name": "api", "password": Secret("p")}
    assert sent(auth)[0].headers["authorization"] == "Basic YXBpOnA="


def test_a_refresh_token_gets_a_token_and_the_next_refresh_token_takes_its_place() -> None:
    auth = {
        "type": "refresh_token",
        "token_path": "/token",
        "client_id": "c",
        "secret": Secret("s_do_not_show"),
        "refresh_token": Secret("r1_do_not_show"),
    }
    granted = [{"access_token": f"a{n}", "refresh_token": f"r{n}_do_not_show", "expires_in": 600} for n in (2, 3)]
    answers = [
        httpx.Response(200, json=granted[0]),
        httpx.Response(401),
        httpx.Response(200, json=granted[1]),
        httpx.Response(200, json={}),
    ]
    first, refused, again, last = sent(auth, answers)
    assert (first.url.path, again.url.path) == ("/token", "/token")
    asked = [parse_qs(each.content.decode())["refresh_token"] for each in (first, again)]
    assert asked == [["r1_do_not_show"], ["r2_do_not_show"]]
    assert [each.headers["authorization"] for each in (refused, last)] == ["Bearer a2", "Bearer a3"]
