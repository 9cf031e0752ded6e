"""The pages over real HTTP: signing in and out, each page with and without content, actions and who may do them."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select, update
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gapless.console.auth import Access
from gapless.console.pages.actions import ACTIONS
from gapless.console.pages.rendering import event_path
from gapless.domain import Mode, Via, to_us
from gapless.ledger.tables import ATTEMPT, AUDIT_LOG, DELIVERY, MISSING, PAYLOAD, QUARANTINE, SESSION, UNRECOVERABLE
from gapless.operations.registry import perform
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
RUN_TOKEN = "run-token-of-this-process"
WIDE = Access(bind="10.0.0.5", run_token=Secret(RUN_TOKEN), token=lambda: Secret("long-token"))
BROWSER = {"accept": "text/html,application/xhtml+xml"}
PAGES = (
    "/", "/live", "/events", "/missed", "/passes", "/dead-letters", "/quarantine", "/unrecoverable", "/destinations",
    "/audit-log", "/tokens", "/sources/acme", "/dead-letters?state=held", "/missed?state=open",
    "/actions/read?source=acme",
)  # fmt: skip


async def token(console: Any, name: str, role: str, **more: Any) -> str:
    made = await perform(console.context, "token.create", {"name": name, "role": role, "expires": None, **more})
    return str(made["token"])


async def sign_in(client: httpx.AsyncClient, secret: str, to: str = "/") -> httpx.Response:
    client.headers.update(BROWSER)
    return await client.post("/login", data={"token": secret, "next": to})


def form_of(page: httpx.Response) -> dict[str, str]:
    """The fields of the form of an action, as a browser sends them."""
    form = page.text[page.text.index("data-confirm") :]
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))
    chosen = re.findall(r'<select [^>]*name="([^"]+)".*?<option value="([^"]*)" selected', form)
    return {name: value.replace("&amp;", "&") for name, value in (fields | dict(chosen)).items()}


async def fill(console: Any) -> None:
    """Put something of everything into the ledger."""
    shop = await console.add_destination("shop")
    await console.add_source("push", mode=Mode.WEBHOOK)
    await console.record(Via.WEBHOOK, "evt_1", "odd/key <i>", ago=timedelta(hours=2))
    await console.record(Via.LIST, "evt_3", ago=timedelta(hours=1))
    await console.listed()
    stream, at = await console.stream_id(), to_us(console.now[0])
    write = console.context.runtime.write
    body = b'{"id": "evt_1", "data": {"object": {"lines": [1, null, true, "x"]}}}'
    await write(lambda c: c.execute(update(PAYLOAD).values(body=body, headers='{"stripe-signature": "t=1"}')).rowcount)
    await console.rows(
        ATTEMPT, destination_id=shop, event_seq=1, at_us=at, duration_us=31_000, outcome="consumer_4xx", detail="422"
    )
    await write(
        lambda c: (
            c.execute(
                update(DELIVERY)
                .where(DELIVERY.c.event_seq == 1)
                .values(state="dead", reason="consumer_4xx", attempts=1)
            ).rowcount
        )
    )
    await write(
        lambda c: (
            c.execute(
                update(DELIVERY).where(DELIVERY.c.event_seq == 2).values(state="held", reason="restored")
            ).rowcount
        )
    )
    await console.rows(
        MISSING, source_id=console.source().id, stream_id=stream, key="evt_9", type="invoice.paid", occurred_us=at,
        found_us=at, reason="detail", next_attempt_us=at, expected=True, cause="refused", last_error="429",
    )  # fmt: skip
    await console.rows(UNRECOVERABLE, stream_id=stream, start_us=at - 9, end_us=at, reason="history", recorded_us=at)
    await console.rows(
        QUARANTINE, source_id=console.source().id, received_us=at, reason="signature", detail="no signature",
        headers='[["stripe-signature", "t=1"]]', body=b'{"id": "evt_9"}', claims='["evt_9"]',
    )  # fmt: skip


async def test_every_page_answers_with_nothing_and_with_everything(console: Any, listen: Any) -> None:
    async with listen() as client:
        client.headers.update(BROWSER)
        for path in PAGES:
            assert (await client.get(path)).status_code == 200, path
    await fill(console)
    await perform(console.context, "source.pass", {"source": "acme", "since": "2026-11-19T00:00:00Z"})
    async with listen() as client:
        client.headers.update(BROWSER)
        more = [*PAGES, "/events/acme/evt_1", f"/events/acme/{quote('odd/key <i>', safe='')}", "/events/acme/evt_3"]
        more += [
            "/passes/1",
            "/quarantine/1",
            "/destinations/shop",
            "/sources/push",
            "/events?state=dead&type=invoice.*",
        ]
        more += ["/actions/requeue?destination=shop", "/actions/release-held", "/actions/acknowledge?source=acme"]
        more += ["/actions/replay?source=acme&key=evt_1", "/actions/release?id=1", "/actions/cancel?id=1"]
        for path in more:
            page = await client.get(path)
            assert page.status_code == 200, (path, page.text[-500:])
            assert "<i>" not in page.text, path
            policy = page.headers["content-security-policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert " style=" not in page.text
            assert re.search(r"<script(?! type=\"module\" src=\"/assets/)", page.text) is None
            assert re.search(r" on\w+=", page.text) is None
            assert len(page.content) < 100_000


async def test_a_browser_signs_in_looks_acts_and_signs_out(console: Any, listen: Any) -> None:
    await fill(console)
    secret = await token(console, "ann", "operator")
    async with listen(access=WIDE) as client:
        client.headers.update(BROWSER)
        led = await client.get("/events?source=acme")
        assert (led.status_code, led.headers["location"]) == (303, "/login?next=%2Fevents%3Fsource%3Dacme")
        done = await sign_in(client, secret, "/dead-letters")
        assert (done.status_code, done.headers["location"]) == (303, "/dead-letters")
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert secret not in cookie
        page = await client.get("/dead-letters")
        assert "Signed in as ann (operator)" in page.text
        asked = await client.get("/actions/requeue?destination=shop&reason=consumer_4xx&back=/dead-letters")
        assert "Requeue 1" in asked.text
        assert "gapless dead requeue --destination shop --reason consumer_4xx" in asked.text
        without = await client.post("/actions/requeue", data=form_of(asked))
        assert without.status_code == 400
        assert "give a reason" in without.text
        sent = await client.post("/actions/requeue", data=form_of(asked) | {"note": "the shop was mended"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/dead-letters")
        after = await client.get("/dead-letters")
        assert "Requeued: 1." in after.text
        assert "Requeued: 1." not in (await client.get("/dead-letters")).text
        query = select(AUDIT_LOG.c.reason).where(AUDIT_LOG.c.action == "dead.requeue", AUDIT_LOG.c.actor == "ann")
        assert await console.sql(query) == "the shop was mended"
        out = await client.post("/logout", data={"csrf": form_of(asked)["csrf"]})
        assert out.headers["location"] == "/login"
        assert (await client.get("/")).status_code == 303
        assert await console.sql(select(SESSION.c.digest)) is None


async def test_a_session_ends_with_its_token_and_after_a_shift(console: Any, listen: Any) -> None:
    secret = await token(console, "ann", "operator")
    async with listen(access=WIDE) as client:
        await sign_in(client, secret)
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/api/v1/events")).status_code == 200
        await perform(console.context, "token.revoke", {"name": "ann"})
        assert (await client.get("/")).status_code == 303
        await sign_in(client, "long-token")
        assert "Signed in as private.token (operator)" in (await client.get("/")).text
        console.now[0] += timedelta(hours=13)
        assert (await client.get("/")).status_code == 303
        await sign_in(client, RUN_TOKEN)
        assert "(owner)" in (await client.get("/")).text


async def test_a_session_of_a_configured_token_ends_when_that_changes(listen: Any) -> None:
    configured = ["long-token-of-before"]
    access = Access(bind="10.0.0.5", run_token=Secret(RUN_TOKEN), token=lambda: Secret(configured[0]))
    async with listen(access=access) as client:
        await sign_in(client, configured[0])
        assert (await client.get("/")).status_code == 200
        configured[0] = "long-token-of-afterwards"
        assert (await client.get("/")).status_code == 303


async def test_wrong_tokens_do_not_sign_in_and_are_slowed(console: Any, listen: Any) -> None:
    metrics = await token(console, "prom", "metrics")
    async with listen() as client:
        refused = await sign_in(client, metrics)
        assert (refused.status_code, "does not open the console" in refused.text) == (403, True)
        statuses = [(await sign_in(client, f"wrong-{n}")).status_code for n in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        assert (
            await client.post("/login", data={"token": "x"}, headers={"origin": "http://evil.example"})
        ).status_code == 403
        assert "set-cookie" not in refused.headers


async def test_a_viewer_is_refused_every_action(console: Any, listen: Any) -> None:
    await fill(console)
    secret = await token(console, "vic", "viewer")
    async with listen(access=WIDE) as client:
        await sign_in(client, secret)
        page = await client.get("/dead-letters")
        assert "needs the role operator" in page.text
        assert "/actions/requeue" not in page.text
        asked = await client.get("/actions/requeue?destination=shop")
        form = form_of(asked) | {"note": "because I like"}
        for name in set(ACTIONS) - {"create-token", "revoke-token"}:
            assert (await client.post(f"/actions/{name}", data=form)).status_code == 403, name
        assert await console.sql(select(DELIVERY.c.state).where(DELIVERY.c.event_seq == 1)) == "dead"


async def test_a_form_of_another_session_or_site_is_refused(console: Any, listen: Any) -> None:
    await fill(console)
    secret = await token(console, "ann", "operator")
    async with listen(access=WIDE) as client, listen(access=WIDE) as other:
        await sign_in(other, secret)
        theirs = form_of(await other.get("/actions/requeue?destination=shop")) | {"note": "a good reason"}
        await sign_in(client, secret)
        own = form_of(await client.get("/actions/requeue?destination=shop")) | {"note": "a good reason"}
        assert (await client.post("/actions/requeue", data=theirs)).status_code == 403
        assert (await client.post("/actions/requeue", data={**own, "csrf": ""})).status_code == 403
        assert (await client.post("/actions/requeue", data={**own, "csrf": "ü"})).status_code == 403
        afar = await client.post("/actions/requeue", data=own, headers={"origin": "http://evil.example"})
        assert afar.status_code == 403
        by_json = await client.post("/api/v1/operations/dead.requeue", json={"note": "by cookie"})
        assert by_json.status_code == 401
        bearer = await client.post("/actions/requeue", data=own, headers={"authorization": f"Bearer {secret}"})
        assert bearer.status_code == 403
        assert await console.sql(select(DELIVERY.c.state).where(DELIVERY.c.event_seq == 1)) == "dead"
        assert (await client.post("/actions/requeue", data=own)).status_code == 303


async def test_each_action_of_the_pages_can_be_done(console: Any, listen: Any) -> None:
    await fill(console)
    await console.rows(
        MISSING, source_id=console.source().id, stream_id=await console.stream_id(), key="unreadable:1", type="",
        occurred_us=5, until_us=9, found_us=9, reason="unreadable", next_attempt_us=9, row=b"{",
    )  # fmt: skip
    asked = {
        "replay": "source=acme&key=evt_3",
        "read": "source=acme&since=24h",
        "cancel": "id=1",
        "requeue": "key=evt_1",
        "release-held": "destination=shop&reason=restored",
        "release": "source=acme",
        "acknowledge": "source=acme&interval=1",
        "dismiss": "source=acme&key=unreadable:1",
        "pause": "destination=shop",
        "resume": "destination=shop",
    }
    async with listen(access=WIDE) as client:
        await sign_in(client, "long-token")
        for name, query in asked.items():
            page = await client.get(f"/actions/{name}?{query}&back=/audit-log")
            assert page.status_code == 200, name
            done = await client.post(f"/actions/{name}", data=form_of(page) | {"note": f"reason of {name}"})
            assert (done.status_code, done.headers.get("location")) == (303, "/audit-log"), (name, done.text[-900:])
        log = (await client.get("/audit-log")).text
        for name in set(asked) - {"release"}:
            assert f"reason of {name}" in log, name
        for path in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
            page = await client.get("/actions/read", params={"source": "acme", "back": path})
            assert form_of(page)["back"] == "/"


async def test_only_an_owner_makes_tokens_on_the_page(listen: Any) -> None:
    async with listen(access=WIDE) as client:
        await sign_in(client, "long-token")
        form = form_of(await client.get("/actions/create-token")) | {"name": "new", "note": "for the new one"}
        assert (await client.post("/actions/create-token", data=form)).status_code == 403
        await sign_in(client, RUN_TOKEN)
        form = form_of(await client.get("/actions/create-token")) | {"name": "new", "note": "for the new one"}
        made = await client.post("/actions/create-token", data=form)
        found = re.search(r"gapless_[\w-]{43}", made.text)
        assert (made.status_code, found is not None) == (200, True)
        assert made.headers["cache-control"] == "no-store"
        assert (await sign_in(client, found[0] if found else "")).status_code == 303
        await sign_in(client, RUN_TOKEN)
        form = form_of(await client.get("/actions/revoke-token?name=new")) | {"note": "not needed"}
        assert (await client.post("/actions/revoke-token", data=form)).status_code == 303


async def test_find_goes_to_the_event_if_there_is_one(console: Any, listen: Any) -> None:
    await console.add_source("other")
    await console.record(Via.WEBHOOK, "evt_1", "both")
    await console.record(Via.WEBHOOK, "both", source="other")
    async with listen() as client:
        for text, path in (
            ("evt_1", "/events/acme/evt_1"),
            ("both", "/events?id=both"),
            ("evt", "/events?prefix=evt"),
            ("", "/events"),
        ):
            assert (await client.get("/find", params={"q": text})).headers["location"] == path


async def test_the_overview_is_green_only_if_nothing_is_wrong(console: Any, listen: Any) -> None:
    async with listen() as client:
        client.headers.update(BROWSER)
        unread = (await client.get("/")).text
        assert 'class="verdict good"' not in unread
        assert "say-unknown" in unread
        await console.record(Via.WEBHOOK, "evt_1")
        await console.listed()
        good = (await client.get("/")).text
        assert 'class="verdict good"' in good
        assert "Complete up to" in good
        await console.listed(last_outcome="options_invalid", parked_reason="401: revoked")
        bad = (await client.get("/")).text
        assert 'class="verdict trouble"' in bad
        assert "401: revoked" in bad
        assert (await client.get("/events")).text.count("verdict-chip trouble") == 1


async def test_what_is_not_there_is_said_on_a_page(console: Any, listen: Any) -> None:
    limited = await token(console, "lim", "viewer", sources=["acme"])
    async with listen(access=WIDE) as client:
        await sign_in(client, limited)
        for path, status in (
            ("/events/acme/none", 404), ("/passes/77", 404), ("/nothing", 404), ("/events?since=x", 400),
            ("/events?via=pigeon", 400), ("/audit-log", 403), ("/tokens", 403), ("/events?after=x", 400),
            ("/actions/nothing", 404), ("/sources/none", 404), ("/events?id=%00", 400), ("/events?prefix=a%00", 400),
            ("/events?object=%00", 400), ("/missed?source=%00", 400),
        ):  # fmt: skip
            page = await client.get(path)
            assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
            assert "<h1>" in page.text
        assert "/audit-log" not in (await client.get("/")).text


async def test_assets_are_kept_for_a_year_and_open_to_all(listen: Any) -> None:
    async with listen(access=WIDE) as client:
        login = (await client.get("/login")).text
        for path in re.findall(r'"(/assets/[^"]+)"', login):
            asset = await client.get(path)
            assert (asset.status_code, "immutable" in asset.headers["cache-control"]) == (200, True), path
        assert (await client.get("/assets/../app.py")).status_code in (401, 404)


async def test_a_session_opens_the_live_stream_of_our_own_pages_only(console: Any, listen: Any) -> None:
    secret = await token(console, "ann", "operator")
    async with listen(access=WIDE) as client:
        cookie = (await sign_in(client, secret)).headers["set-cookie"].partition(";")[0]
        ours = str(client.base_url).rstrip("/")
        address = f"{ours.replace('http', 'ws')}/api/v1/stream"
        async with connect(address, origin=ours, additional_headers={"cookie": cookie}, proxy=None) as opened:
            await opened.close()
        for headers in ({}, {"cookie": cookie + "x"}):
            with pytest.raises(InvalidStatus, match="401"):
                async with connect(address, origin=ours, additional_headers=headers, proxy=None):
                    pass
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(
                address, origin="http://evil.example", additional_headers={"cookie": cookie}, proxy=None
            ):
                pass


async def test_a_payload_or_refused_webhook_of_many_levels_is_a_page(console: Any, listen: Any) -> None:
    await fill(console)
    body = b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"
    write = console.context.runtime.write
    await write(lambda c: c.execute(update(PAYLOAD).values(body=body)).rowcount)
    await write(lambda c: c.execute(update(QUARANTINE).values(body=body)).rowcount)
    async with listen(access=WIDE) as client:
        await sign_in(client, "long-token")
        number = await console.context.runtime.read(lambda c: c.execute(select(QUARANTINE.c.id)).scalars().first())
        for path in (event_path("acme", "evt_1"), f"/quarantine/{number}"):
            shown = await client.get(path)
            assert (shown.status_code, "deeper than what is shown" in shown.text) == (200, True), path


async def test_a_command_to_copy_quotes_what_a_sender_wrote(console: Any, listen: Any) -> None:
    key = "k; touch $(id) `id`"
    await console.record(Via.WEBHOOK, key, ago=timedelta(hours=2))
    async with listen(access=WIDE) as client:
        await sign_in(client, "long-token")
        shown = await client.get(event_path("acme", key))
        assert "gapless event show &#39;k; touch $(id) `id`&#39; --source acme" in shown.text
        listed = await client.get("/quarantine", params={"source": "a; id"})
        assert "--source &#39;a; id&#39;" in listed.text
