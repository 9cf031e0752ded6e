"""People sign in to the console at a provider of OpenID Connect; what is forged, stolen or replayed opens nothing."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from inside import call, serving
from openid import CLIENT_ID, CLIENT_SECRET, OpenIdProvider, new_key
from outside import Gapless

from gapless.console import identity_provider, oidc, refusals
from gapless.console.browser_sessions import COOKIE

pytestmark = pytest.mark.anyio
TOKEN = "a_private_token_0123456789abcdef0123"
PAUSE = {"destination": "shop", "note": "the shop is being moved"}
SHOP = """
[[destination]]
name = "shop"
url = "http://127.0.0.1:1/hook"
secret_env = "CONSUMER_SECRET"
allow = ["127.0.0.1"]
"""
ANN = {"email": "ann@acme.example", "email_verified": True, "groups": ["staff", "payments-admins"]}


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(ANN)).serve() as served:
        yield served


@asynccontextmanager
async def console(provider: OpenIdProvider, folder: Path, **changed: str) -> AsyncIterator[Gapless]:
    daemon = Gapless(folder, f"sqlite:///{folder}/ledger.db", "http://127.0.0.1:9", destinations=SHOP)
    told = {
        "issuer": provider.url,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "url": daemon.private,
        "operators": "payments-admins",
        "viewers": "support, audit",
    } | changed
    daemon.environment = {f"GAPLESS_OIDC__{name.upper()}": value for name, value in told.items()}
    daemon.environment |= {"GAPLESS_PRIVATE__TOKEN": TOKEN}
    async with serving(daemon):
        yield daemon


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "must_wait" not in request.node.name:
        monkeypatch.setattr(refusals, "ALLOWED_AT_ONCE", 1000)


@pytest.fixture
async def daemon(provider: OpenIdProvider, tmp_path: Path) -> AsyncIterator[Gapless]:
    async with console(provider, tmp_path) as daemon:
        yield daemon


@asynccontextmanager
async def browser(daemon: Gapless) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"accept": "text/html"}
    async with httpx.AsyncClient(base_url=daemon.private, trust_env=False, timeout=30, headers=headers) as client:
        yield client


def form_secret(page: httpx.Response) -> dict[str, str]:
    return {"csrf": re.findall(r'name="csrf" value="([^"]+)"', page.text)[0]}


async def led_back(client: httpx.AsyncClient, next_: str = "/events") -> str:
    """Begin to sign in, and let the provider consent; return the address to which it leads back."""
    left = await client.get("/login/oidc", params={"next": next_})
    assert left.status_code == 303, left.text
    return (await client.get(left.headers["location"])).headers["location"]


async def signed_in(client: httpx.AsyncClient, next_: str = "/events") -> httpx.Response:
    return await client.get(await led_back(client, next_))


async def test_a_member_of_a_group_signs_in_and_acts_under_her_name(daemon: Gapless) -> None:
    async with browser(daemon) as ann:
        assert (await ann.get("/events")).status_code == 303
        question = await ann.get("/login?next=/events")
        assert 'href="/login/oidc?next=%2Fevents"' in question.text
        back = await signed_in(ann)
        assert (back.status_code, back.headers["location"]) == (303, "/events")
        page = await ann.get("/")
        assert (page.status_code, "ann@acme.example" in page.text) == (200, True)
        acted = await ann.post("/actions/pause", data=PAUSE | form_secret(page))
        assert acted.status_code == 303, acted.text
    shown = (await call(daemon, "log", "--json")).output
    assert '"actor":"ann@acme.example","action":"destination.pause"' in shown
    assert '"role":"operator"' in shown


GROUPS: list[tuple[Any, int]] = [
    (["support"], 303), ("support", 303), (["staff"], 403), ([], 403), (None, 403), ([["support"]], 403), (7, 403),
]  # fmt: skip


async def test_the_groups_of_a_person_decide(daemon: Gapless, provider: OpenIdProvider) -> None:
    for groups, status in GROUPS:
        provider.claims["groups"] = groups
        async with browser(daemon) as client:
            answer = await signed_in(client)
            assert (answer.status_code, COOKIE in client.cookies) == (status, status == 303), groups
            if status == 303:
                refused = await client.post("/actions/pause", data=PAUSE | form_secret(await client.get("/")))
                assert refused.status_code == 403


NOT_OURS: list[dict[str, Any]] = [
    {"nonce": "another"}, {"nonce": None}, {"aud": "another-client"}, {"aud": [CLIENT_ID, "another"]},
    {"aud": [CLIENT_ID, "another"], "azp": "another"}, {"iss": "https://accounts.evil.example"}, {"iss": None},
    {"exp": 1}, {"exp": None}, {"nbf": 4_000_000_000}, {"sub": None},
]  # fmt: skip


async def test_a_token_that_is_not_for_this_sign_in_opens_nothing(daemon: Gapless, provider: OpenIdProvider) -> None:
    for claims in NOT_OURS:
        provider.claims = ANN | claims
        async with browser(daemon) as client:
            answer = await signed_in(client)
            assert (answer.status_code, COOKIE in client.cookies) == (403, False), claims
            assert (await client.get("/events")).status_code == 303


async def test_a_forged_token_opens_nothing(daemon: Gapless, provider: OpenIdProvider) -> None:
    for provider.forged in ("none", "hs256", "unknown key"):
        async with browser(daemon) as client:
            assert (await signed_in(client)).status_code == 403, provider.forged
            assert COOKIE not in client.cookies


async def test_who_has_not_begun_is_not_let_in(daemon: Gapless) -> None:
    """A link to the callback, made by somebody who has signed in himself, signs nobody else in."""
    async with browser(daemon) as mallory, browser(daemon) as ann:
        link = await led_back(mallory)
        assert (await ann.get(link)).status_code == 403
        await led_back(ann)
        assert (await ann.get(link)).status_code == 403
        assert COOKIE not in ann.cookies


async def test_a_code_counts_once(daemon: Gapless) -> None:
    async with browser(daemon) as client:
        link = await led_back(client)
        kept = client.cookies.get(oidc.ATTEMPT_COOKIE, path="/login")
        assert (await client.get(link)).status_code == 303
        assert client.cookies.get(oidc.ATTEMPT_COOKIE) is None
        assert (await client.get(link)).status_code == 403
        assert kept is not None
        client.cookies.set(oidc.ATTEMPT_COOKIE, kept, path="/login")
        assert (await client.get(link)).status_code == 403


async def test_nobody_is_led_to_another_site(daemon: Gapless) -> None:
    async with browser(daemon) as client:
        for next_ in ("//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"):
            assert (await signed_in(client, next_)).headers["location"] == "/", next_


async def test_an_address_that_is_not_verified_is_no_name(daemon: Gapless, provider: OpenIdProvider) -> None:
    provider.claims |= {"email": "boss@acme.example", "email_verified": False}
    async with browser(daemon) as client:
        await signed_in(client)
        page = (await client.get("/")).text
        assert ("boss@acme.example" in page, "u-1" in page) == (False, True)


async def test_the_provider_may_replace_its_keys(
    daemon: Gapless, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_provider, "KEYS_AGAIN_S", 0.0)
    async with browser(daemon) as client:
        assert (await signed_in(client)).status_code == 303
        provider.key = new_key()
        assert (await signed_in(client)).status_code == 303


async def test_unknown_keys_are_not_asked_for_again_and_again(daemon: Gapless, provider: OpenIdProvider) -> None:
    provider.forged = "unknown key"
    async with browser(daemon) as client:
        for _ in range(3):
            await signed_in(client)
    assert provider.asked.count("/keys") == 1


async def test_a_session_ends_with_what_it_was_begun_under(provider: OpenIdProvider, tmp_path: Path) -> None:
    async with console(provider, tmp_path) as daemon, browser(daemon) as client:
        await signed_in(client)
        cookie = client.cookies[COOKIE]
    for changed, status in (({}, 200), ({"operators": "others"}, 303)):
        async with console(provider, tmp_path, **changed) as daemon, browser(daemon) as client:
            client.cookies.set(COOKIE, cookie)
            assert (await client.get("/events")).status_code == status


async def test_a_provider_that_is_away_keeps_nobody_with_a_token_out(daemon: Gapless, provider: OpenIdProvider) -> None:
    async with browser(daemon) as client:
        for provider.answer in ((500, b""), (200, b"<html>"), (302, b""), (200, b" " * (2 << 20))):
            assert (await client.get("/login/oidc")).status_code == 503
        assert "/elsewhere" not in provider.asked
        assert (await client.post("/login", data={"token": TOKEN, "next": "/"})).status_code == 303


async def test_another_issuer_in_the_discovery_is_refused(daemon: Gapless, provider: OpenIdProvider) -> None:
    provider.metadata = {"issuer": "https://accounts.evil.example"}
    async with browser(daemon) as client:
        assert (await client.get("/login/oidc")).status_code == 503
    assert "is of the issuer" in (await call(daemon, "check")).output


async def test_who_fails_again_and_again_must_wait(daemon: Gapless) -> None:
    async with browser(daemon) as client:
        statuses = {(await client.get("/login/oidc/callback?state=x&code=y")).status_code for _ in range(40)}
    assert statuses == {403, 429}


async def test_check_asks_the_provider(daemon: Gapless) -> None:
    assert f"{daemon.private}/login/oidc/callback" in (await call(daemon, "check")).output
