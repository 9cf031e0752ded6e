"""The live stream over real WebSockets: complete, in order, resumable, bounded, and only for those who may."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
from sqlalchemy import delete
from streams import BRISK, WAIT_S, Follower, address, following, record, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gapless.connections.limits import ConnectionLimits
from gapless.console.auth import Access
from gapless.console.feed.hub import Hub
from gapless.console.feed.limits import FeedLimits
from gapless.domain import Cause, Via, to_us
from gapless.ledger import feed, retention
from gapless.ledger.engine import Store, StoreUnavailable
from gapless.ledger.tables import EVENT
from gapless.operations.registry import perform
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
RUN = {"authorization": "Bearer run-token-of-this-process"}
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("a-long-token-0123"))
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)


async def refusal(client: Any, headers: dict[str, str] | None = None, **query: object) -> tuple[int, str]:
    """The status and the message with which the WebSocket is refused; a plain GET is answered the same."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(address(client, **query), additional_headers=headers, proxy=None):
            pass
    response = refused.value.response
    plain = await client.get(f"/api/v1/stream?{urlencode(query, doseq=True)}", headers=headers)
    said = json.loads(response.body)["error"]
    if response.status_code != 503:
        assert (plain.status_code, plain.json()["error"]) == (response.status_code, said)
    return response.status_code, said


@pytest.fixture
def stream(console: Any, listen: Any) -> Callable[..., Any]:
    """`async with stream(limits) as client`: the private listener, whose stream has these limits."""

    @asynccontextmanager
    async def start(limits: FeedLimits = BRISK, **changes: Any) -> AsyncIterator[Any]:
        async with listen(hub=Hub(console.context.runtime, limits), **changes) as client:
            yield client

    return start


# --- what comes -------------------------------------------------------------------------------------------------------


async def test_events_come_as_they_are_recorded(console: Any, stream: Any) -> None:
    await record(console, "before")
    async with stream() as client, following(client) as follower:
        await record(console, "a", "b")
        await record(console, "c", via=Via.LIST, cause=Cause.UNEXPLAINED)
        first, second, third = await follower.events(3)
    assert [each["key"] for each in (first, second, third)] == ["a", "b", "c"]
    assert first == {
        "cursor": first["cursor"],
        "id": first["id"],
        "key": "a",
        "source": "acme",
        "stream": "",
        "type": "invoice.paid",
        "object": None,
        "via": "webhook",
        "occurred_at": "2026-11-20T12:28:30Z",
        "recorded_at": "2026-11-20T12:30:00Z",
        "delay_s": 90.0,
        "mode": None,
        "missed": False,
    }
    assert first["id"].startswith("gapless_")
    assert (third["via"], third["missed"]) == ("list", True)
    assert follower.hello["cursor"] != first["cursor"] != second["cursor"]


async def test_whoever_goes_on_with_a_cursor_gets_all_that_came_since(console: Any, stream: Any) -> None:
    """Also one who got no event at all, and after a restart of the daemon."""
    async with stream() as client:
        async with following(client) as follower:
            started = follower.cursor
        await record(console, "a", "b", "c")
        async with following(client, after=started) as again:
            got = await again.events(3)
            assert [each["key"] for each in got] == ["a", "b", "c"]
            last = again.cursor
        async with following(client, after=got[0]["cursor"]) as again:
            assert await again.keys(2) == ["b", "c"]
    async with stream() as client:
        await record(console, "d")
        async with following(client, after=last) as again:
            await record(console, "e")
            assert await again.keys(2) == ["d", "e"]


async def test_a_time_replays_what_was_recorded_since(console: Any, stream: Any) -> None:
    for n in range(8):
        await record(console, f"e{n}")
        console.now[0] += timedelta(minutes=10)
    async with stream() as client:
        for since in ("35m", (console.now[0] - timedelta(minutes=35)).isoformat()):
            async with following(client, since=since) as follower:
                assert await follower.keys(3) == ["e5", "e6", "e7"]
        async with following(client, since="35m") as follower:
            assert await follower.keys(3) == ["e5", "e6", "e7"]
            await record(console, "now")
            assert await follower.keys(1) == ["now"]


async def test_named_events_come_once_more_before_all_others(console: Any, stream: Any) -> None:
    await console.add_source("shop")
    await record(console, "a", "b", "c", payload=b'{"n": 1}')
    await record(console, "b", source="shop")
    async with stream(access=WIDE) as client:
        async with following(client, RUN, key=["c", "b"], payload="true") as follower:
            first, *others = await follower.events(3)
            assert (first["key"], first["payload"]) == ("b", {"n": 1})
            assert [(each["source"], each["key"]) for each in others] == [("acme", "c"), ("shop", "b")]
            await record(console, "d")
            assert await follower.keys(1) == ["d"]
            async with following(client, RUN, after=follower.hello["cursor"]) as again:
                assert await again.keys(1) == ["d"]
        mine = await token(console, "shop-only", "viewer", sources=["shop"])
        async with following(client, mine, key="b") as follower:
            assert [each["source"] for each in await follower.events(1)] == ["shop"]
        for headers, query in ((RUN, {"key": "none"}), (mine, {"key": "a"}), (RUN, {"key": "a", "types": "x"})):
            status, said = await refusal(client, headers, **query)
            assert (status, "1 keys are not among the events that you ask for" in said) == (404, True)
        assert (await refusal(client, RUN, key=["a"] * 101))[0] == 400


async def test_what_comes_once_more_is_told_to_those_who_listen(console: Any, stream: Any) -> None:
    """A webhook that the vendor sends again, from its dashboard perhaps, and a replay: neither is a new event."""
    await console.add_destination("shop")
    await record(console, "a", "b", payload=b"1")
    replay = {"destination": "shop", "keys": ["b"]}
    async with stream() as client, following(client, payload="true") as follower, following(client, types="x") as other:
        for key, say in (
            ("a", lambda: record(console, "a", payload=b"1")),
            ("b", lambda: perform(console.context, "event.replay", replay)),
        ):
            told = asyncio.create_task(follower.message())
            while not told.done():  # who has not begun to listen yet is told nothing
                await say()
                await asyncio.wait((told,), timeout=0.1)
            got = told.result()
            while got["events"][0]["key"] != key:  # it was said several times
                got = await follower.message()
            assert (got["message"], got["cursor"]) == ("again", follower.hello["cursor"])
            assert [(each["key"], each["payload"]) for each in got["events"]] == [(key, 1)]
        await record(console, "new", type="x")
        assert await other.keys(1) == ["new"]


async def test_only_what_is_wanted_comes(console: Any, stream: Any) -> None:
    await console.add_source("shop")
    async with stream() as client:
        wanted = [
            ({"source": "shop"}, ["s1", "s2"]),
            ({"source": "acme,shop", "types": "charge.*"}, ["s2"]),
            ({"types": "invoice.paid, charge.refunded"}, ["a1", "s1", "s2", "a3"]),
            ({"via": "list"}, ["a3"]),
        ]
        followers = [following(client, **query) for query, _ in wanted]
        opened = [await each.__aenter__() for each in followers]
        await record(console, "a1")
        await record(console, "s1", source="shop")
        await record(console, "s2", source="shop", type="charge.refunded")
        await record(console, "a3", via=Via.LIST)
        for follower, (_, keys) in zip(opened, wanted, strict=True):
            assert await follower.keys(len(keys)) == keys
        late = [following(client, since="1h", **query) for query, _ in wanted]
        for each, (_, keys) in zip(late, wanted, strict=True):
            async with each as follower:
                assert await follower.keys(len(keys)) == keys
        for each in followers:
            await each.__aexit__(None, None, None)


async def test_payloads_come_only_if_they_are_asked_for_and_masked(console: Any, stream: Any) -> None:
    console.context.sources.change("acme", mask=("/card/*",))
    await console.add_source("shop")
    async with stream() as client, following(client, payload="true") as full, following(client) as bare:
        await record(console, "a", payload=b'{"card": {"number": "4242"}, "n": 1.50}')
        await record(console, "b", payload=b'{"n":  1.50}', source="shop", headers='{"stripe-signature": "t=1,v1=x"}')
        await record(console, "c", payload=b"\xffnot json", source="shop")
        masked, plain, binary = await full.events(3)
        assert (masked["payload"], masked["masked"]) == ({"card": {"number": "***"}, "n": 1.5}, True)
        assert (plain["payload"], plain["masked"], plain["headers"]) == ({"n": 1.5}, False, {})
        assert (binary["payload_base64"], "payload" in binary) == ("/25vdCBqc29u", False)
        assert all("payload" not in each for each in await bare.events(3))
        await console.context.runtime.write(retention.prune_payloads, before_us=to_us(console.now[0]) + 1)
        async with following(client, payload="true", since="1h") as later:
            (first, *_) = await later.events(3)
            assert (first["payload"], first["payload_absent"]) == (None, "pruned, or imported without one")


async def test_what_is_not_judged_yet_is_not_called_missed_or_not(console: Any, stream: Any) -> None:
    async with stream() as client, following(client) as follower:
        later_us = to_us(console.now[0] + timedelta(minutes=5))
        await record(console, "a", via=Via.LIST, cause=Cause.UNEXPLAINED, awaited_until_us=later_us)
        ((event),) = await follower.events(1)
        assert event["missed"] is None


async def test_a_quiet_stream_tells_that_it_lives(console: Any, stream: Any) -> None:
    """Its cursor moves over events that this listener does not want."""
    async with stream(replace(BRISK, heartbeat_s=0.02)) as client, following(client, types="none") as follower:
        assert follower.hello["heartbeat_s"] == 0.02
        await record(console, "a")
        moved = follower.cursor
        async with asyncio.timeout(WAIT_S):
            while follower.cursor == moved:
                got = await follower.message()
                assert got["message"] == "heartbeat"
            while got["read_at"] is None:
                got = await follower.message()
        assert got["read_at"] == "2026-11-20T12:30:00Z"
        async with following(client, after=follower.cursor) as again:
            await record(console, "b", type="none")
            assert await again.keys(1) == ["b"]


async def test_a_listener_that_is_far_behind_reads_the_ledger_and_then_joins(console: Any, stream: Any) -> None:
    small = replace(BRISK, buffer_events=10, page_events=7, frame_bytes=1000, page_bytes=3000)
    keys = [f"e{n:03d}" for n in range(100)]
    for at in range(0, 100, 20):
        await record(console, *keys[at : at + 20], payload=b'"%b"' % (b"x" * 700))
    async with stream(small) as client:
        for payload in ("true", "false"):
            async with following(client, since="1h", payload=payload) as follower:
                assert await follower.keys(len(keys)) == keys
                await record(console, f"live-{payload}", payload=b"1")
                (live,) = await follower.events(1)
                assert (live["key"], live.get("payload")) == (f"live-{payload}", 1 if payload == "true" else None)
                keys.append(live["key"])
        async with following(client) as bare, following(client, payload="true") as full:
            await record(console, *(f"more{n:02d}" for n in range(60)), payload=b"2")
            assert await bare.keys(60) == [f"more{n:02d}" for n in range(60)]
            assert [each["payload"] for each in await full.events(60)] == [2] * 60


async def test_nothing_is_skipped_that_an_open_transaction_commits_late(
    console: Any, stream: Any, store_url: str
) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("one writer")
    source, own = console.source().id, await console.stream_id()
    session = await asyncpg.connect(store_url)
    async with stream() as client, following(client) as follower:
        held = session.transaction()
        await held.start()
        await session.execute(
            "INSERT INTO event (source_id, stream_id, key, type, occurred_us, first_seen_us, via) "
            f"VALUES ({source}, {own}, 'held', 'invoice.paid', 0, 0, 'webhook')"
        )
        await record(console, "a", "b")
        async with following(client, after=follower.cursor) as other:
            await record(console, "c")
            async with asyncio.timeout(WAIT_S):
                while len(await console.context.read(feed.page, 0, 1 << 40, 9)) < 3:
                    await asyncio.sleep(0.01)
            console.now[0] += timedelta(seconds=7)
            assert console.metrics.registry.get_sample_value("gapless_stream_lag_seconds") == 7
            await held.commit()
            assert await other.keys(4) == ["held", "a", "b", "c"]
        assert await follower.keys(4) == ["held", "a", "b", "c"]
    await session.close()


async def test_where_to_begin_is_said_only_once_it_is_known(console: Any, stream: Any, store_url: str) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("one writer")
    session = await asyncpg.connect(store_url)
    async with stream(replace(BRISK, start_within_s=0.1)) as client, session.transaction():
        await session.execute("LOCK TABLE event IN ROW EXCLUSIVE MODE")
        await record(console, "a")
        async with connect(address(client), proxy=None) as opened:
            code, reason = await Follower(opened).closed()
            assert (code, "open transaction" in reason) == (1013, True)
    await session.close()


class SometimesAway:
    """A store that cannot be reached while `is_away`."""

    def __init__(self, store: Store) -> None:
        self.store, self.is_away, self.refused = store, False, 0

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_away:
            self.refused += 1
            raise StoreUnavailable("away")
        return await self.store.read(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@on_sqlite
async def test_a_store_that_was_away_costs_no_event(console: Any, stream: Any, store: Store) -> None:
    away = SometimesAway(store)
    console.use(store=away)
    await record(console, "a", "b")
    async with stream() as client, following(client) as live, following(client, since="1h") as behind:
        assert await behind.keys(2) == ["a", "b"]
        stream_id, away.is_away = await console.stream_id(), True
        await until(lambda: away.refused)
        await record(console, "c", stream_id=stream_id)
        status, said = await refusal(client, after=live.cursor)
        assert (status, "the store does not answer" in said) == (503, True)
        assert (await client.get("/api/v1/stream", params={"key": "a"})).status_code == 503
        away.is_away = False
        assert await live.keys(1) == await behind.keys(1) == ["c"]


# --- what is refused -------------------------------------------------------------------------------------------------


@on_sqlite
async def test_a_bad_query_is_refused_before_anything_is_opened(stream: Any) -> None:
    async with stream() as client:
        for query, said in (
            ({"after": "x"}, "is no cursor"),
            ({"after": "é" * 23}, "is no cursor"),
            ({"since": "yesterday"}, "wanted such as 2h"),
            ({"since": "99999999999d"}, "wanted such as 2h"),
            ({"types": "in*voice"}, "such as invoice.paid"),
            ({"types": ",".join("abcdefghijklmnopqrstuvwxyz" * 3)}, "78 of them"),
            ({"via": "post"}, "wanted some of webhook, list"),
            ({"payload": "yes"}, "wanted true or false"),
            ({"source": "nobody"}, "source 'nobody' is not configured"),
            ({"sources": "acme"}, "has no parameter 'sources'"),
        ):
            status, message = await refusal(client, **query)
            assert (status, said in message) == (400, True), message


@on_sqlite
async def test_odd_queries_are_refused_too(stream: Any) -> None:
    async with stream() as client:
        for raw in ("after=a&after=b", "%ff=%fe", "since=1h&since=2h", "&".join(["types=a"] * 300)):
            answer = await client.get(f"/api/v1/stream?{raw}")
            assert answer.status_code == 400, raw
        assert (await client.get("/api/v1/stream")).status_code == 426
        assert (await client.post("/api/v1/stream")).status_code == 405
        assert (await client.head("/api/v1/stream")).status_code == 405
        other = connect(address(client).replace("/stream", "/nothing"), proxy=None)
        with pytest.raises(InvalidStatus) as refused:
            await other
        assert refused.value.response.status_code in (403, 404)


async def test_a_cursor_of_another_ledger_is_said_to_be_unknown(console: Any, stream: Any) -> None:
    await record(console, "a", "b")
    async with stream() as client:
        async with following(client, since="1h") as follower:
            first, second = await follower.events(2)
        await console.context.runtime.write(lambda c: c.execute(delete(EVENT).where(EVENT.c.key == "b")).rowcount)
        for cursor, status in ((first["cursor"], 426), (second["cursor"], 410)):
            assert (await client.get("/api/v1/stream", params={"after": cursor})).status_code == status
        status, said = await refusal(client, after=second["cursor"])
        assert (status, "a restored backup lacks" in said) == (410, True)


async def test_listeners_of_a_ledger_that_went_back_are_told(console: Any, stream: Any) -> None:
    await record(console, "a")
    async with stream() as client, following(client) as follower:
        await record(console, "b", "c")
        assert await follower.keys(2) == ["b", "c"]
        await console.context.runtime.write(lambda c: c.execute(delete(EVENT).where(EVENT.c.key != "a")).rowcount)
        assert (await follower.closed())[0] == 4410


@on_sqlite
async def test_no_more_listeners_than_allowed(console: Any, stream: Any) -> None:
    async with stream(replace(BRISK, clients=2)) as client:
        async with following(client), following(client):
            status, said = await refusal(client)
            assert (status, "2 listeners follow the stream already" in said) == (503, True)
            assert console.metrics.registry.get_sample_value("gapless_stream_clients") == 2
        await until(lambda: console.metrics.registry.get_sample_value("gapless_stream_clients") == 0)
        async with following(client) as follower:
            await record(console, "a")
            assert await follower.keys(1) == ["a"]
        assert console.metrics.registry.get_sample_value("gapless_stream_closed_total", {"reason": "full"}) == 1


# --- who may ---------------------------------------------------------------------------------------------------------


async def token(console: Any, name: str, role: str, **changes: Any) -> dict[str, str]:
    made = await perform(console.context, "token.create", {"name": name, "role": role, "expires": None, **changes})
    return {"authorization": f"Bearer {made['token']}"}


@on_sqlite
async def test_a_token_opens_the_stream_if_its_role_sees_events(console: Any, stream: Any) -> None:
    await console.add_destination("shop")
    async with stream(access=WIDE) as client:
        assert (await refusal(client))[0] == 401
        assert (await refusal(client, {"authorization": "Bearer wrong"}))[0] == 401
        for role in ("metrics", "consumer"):
            limits = {"destinations": ["shop"]} if role == "consumer" else {}
            assert (await refusal(client, await token(console, role, role, **limits)))[0] == 403
        for headers in (await token(console, "see", "viewer"), await token(console, "act", "operator"), RUN):
            async with following(client, headers):
                pass


async def test_a_limited_token_sees_its_own_sources_only(console: Any, stream: Any) -> None:
    await console.add_source("shop")
    await record(console, "old-acme")
    await record(console, "old-shop", source="shop")
    async with stream(access=WIDE) as client:
        mine = await token(console, "shop-only", "viewer", sources=["shop"])
        async with following(client, mine, since="1h") as follower, following(client, mine) as live:
            await record(console, "new-acme")
            await record(console, "new-shop", source="shop")
            assert await follower.keys(2) == ["old-shop", "new-shop"]
            assert await live.keys(1) == ["new-shop"]
        status, said = await refusal(client, mine, source="acme")
        assert (status, "limited to sources shop" in said) == (403, True)


async def test_a_stream_ends_with_the_token_that_opened_it(console: Any, stream: Any) -> None:
    until_ = console.now[0] + timedelta(hours=1)
    async with stream(replace(BRISK, recheck_s=0.02), access=WIDE) as client:
        gone = await token(console, "gone", "viewer")
        short = await token(console, "short", "viewer", expires=until_.isoformat())
        kept = await token(console, "kept", "viewer")
        async with following(client, gone) as a, following(client, short) as b, following(client, kept) as c:
            await perform(console.context, "token.revoke", {"name": "gone"})
            assert (await a.closed())[0] == 4401
            console.now[0] = until_
            code, reason = await b.closed()
            assert (code, "revoked, has expired" in reason) == (4401, True)
            await record(console, "a")
            assert await c.keys(1) == ["a"]
        assert (await refusal(client, gone))[0] == 401


@on_sqlite
async def test_no_page_of_another_site_can_open_it(stream: Any) -> None:
    """A browser sends cookies and opens WebSockets for any page, and on loopback no token is needed."""
    async with stream() as client:
        own = str(client.base_url).rstrip("/")
        async with following(client, {"origin": own}):
            pass
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": own.replace("127.0.0.1", "localhost")},
            {"sec-fetch-site": "cross-site"},
            {"origin": "http://evil.example", **RUN},
        ):
            assert await refusal(client, headers) == (403, "the request comes from another site")
        assert (await refusal(client, {"x-forwarded-for": "1.2.3.4"}))[0] == 403
        with pytest.raises(InvalidStatus) as rebound:
            async with connect(
                address(client).replace("127.0.0.1", "localhost"),
                proxy=None,
                host="127.0.0.1",
                additional_headers={"x-real-ip": "1.1.1.1"},
            ):
                pass
        assert rebound.value.response.status_code == 403


# --- limits ----------------------------------------------------------------------------------------------------------


@on_sqlite
async def test_a_listener_has_nothing_to_say(console: Any, stream: Any) -> None:
    async with stream(replace(BRISK, messages=3)) as client:
        async with following(client) as follower:
            for _ in range(2):
                await follower.socket.send("hello?")
            await record(console, "a")
            assert await follower.keys(1) == ["a"]
            await follower.socket.send("hello?")
            assert await follower.closed() == (1008, "nothing is expected from you")
        async with following(client) as follower:
            await follower.socket.send("x" * 2000)
            assert (await follower.closed())[0] == 1009
        async with following(client) as follower:
            with suppress(ConnectionClosed):
                for _ in range(200):
                    await follower.socket.ping()
            assert (await follower.closed())[0] == 1008
        async with following(client) as follower:
            await follower.socket.send(["a", "b"])  # in parts
            assert (await follower.closed())[0] == 1008
    assert console.metrics.registry.get_sample_value("gapless_stream_clients") == 0


async def slow_socket(client: Any, **query: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A listener whose kernel takes little, and which reads nothing by itself."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)  # noqa: FBT003 - its only argument
    await asyncio.get_running_loop().sock_connect(raw, (client.base_url.host, client.base_url.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    writer.write(
        f"GET /api/v1/stream?{urlencode(query)} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\n"
        f"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@on_sqlite
async def test_garbage_ends_the_connection_and_nothing_else(
    console: Any, stream: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mask = b"\0\0\0\0"
    chance = random.Random(7)
    async with stream() as client, following(client) as other:
        for sent in (
            b"\x81\x05hello",  # not masked
            b"\xf1\x80" + mask,  # bits that mean nothing
            b"\x83\x80" + mask,  # a kind that there is not
            b"\x80\x80" + mask,  # a part of nothing
            b"\x81\xff" + (1 << 62).to_bytes(8) + mask,  # longer than anything
            b"\x89\xfe\x01\x00" + mask,  # a ping that is too long
            b"\x81\x82" + mask + b"\xff\xff",  # no UTF-8
            b"\x88\x81" + mask + b"\x03",  # half a close code
            b"\x88\x82" + mask + b"\x00\x01",  # a close code that there is not
            b"\x88\x82" + mask + b"\x03\xe8",  # a close
            b"\x89\x80" + mask * 1,
            b"GET / HTTP/1.1\r\n\r\n",
            *(chance.randbytes(200) for _ in range(20)),
        ):
            reader, writer = await slow_socket(client)
            writer.write(sent)
            writer.write_eof()
            async with asyncio.timeout(WAIT_S):
                while await reader.read(1 << 16):
                    pass
            writer.close()
        await record(console, "a")
        assert await other.keys(1) == ["a"]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert len(console.connections) == 0


async def test_a_slow_listener_is_cut_and_told_and_loses_nothing(console: Any, stream: Any) -> None:
    body = b'"%b"' % (b"x" * 20_000)
    keys = [f"e{n:04d}" for n in range(150)]
    limits = replace(BRISK, send_within_s=0.3, buffer_bytes=200_000)
    async with stream(limits) as client:
        reader, writer = await slow_socket(client, payload="true")
        async with following(client, payload="true") as quick:
            for at in range(0, len(keys), 50):
                await record(console, *keys[at : at + 50], payload=body)
            assert await quick.keys(len(keys)) == keys
            cut = {"reason": "slow"}
            await until(lambda: console.metrics.registry.get_sample_value("gapless_stream_closed_total", cut) == 1)
        async with asyncio.timeout(WAIT_S):
            rest = await reader.read(1 << 30)
            while part := await reader.read(1 << 30):
                rest += part
        writer.close()
    assert b"\x88" in rest[-200:]
    assert b"too slow: you do not take what is sent; go on with your last cursor" in rest[-200:]
    cursors = [part[:23].decode() for part in rest.split(b'"message":"events","cursor":"')[1:]]
    got = rest.count(b'"key":"e')
    async with stream(BRISK) as client, following(client, after=cursors[-1]) as again:
        assert await again.keys(len(keys) - got) == keys[got:]


async def test_one_that_reads_nothing_for_long_is_reset(console: Any, stream: Any) -> None:
    limits, kept = replace(BRISK, send_within_s=0.1), ConnectionLimits(unread_within_s=0.2)
    async with stream(limits, connections=kept) as client:
        _, writer = await slow_socket(client, payload="true")
        for n in range(100):
            await record(console, f"e{n}", payload=b'"%b"' % (b"x" * 20_000))
        reset = {"listener": "private", "reason": "unread"}
        await until(lambda: console.metrics.registry.get_sample_value("gapless_connections_closed_total", reset) == 1)
        await until(
            lambda: console.metrics.registry.get_sample_value("gapless_connections", {"listener": "private"}) <= 1
        )
        writer.close()


@on_sqlite
async def test_a_broken_upgrade_is_answered_with_a_client_error(stream: Any, caplog: pytest.LogCaptureFixture) -> None:
    whole = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": KEY}
    async with stream() as client:
        for line, headers in (
            ("GET /api/v1/stream HTTP/1.1", {"sec-websocket-version": "", "sec-websocket-key": ""}),
            ("GET /api/v1/stream HTTP/1.1", {"sec-websocket-version": "12"}),
            ("GET /api/v1/stream HTTP/1.1", {"sec-websocket-key": "?", "x": "\xff\xfe"}),
            ("GET /api/v1/stream HTTP/1.1", {"upgrade": "h2c"}),
            ("GET /api/v1/stream HTTP/1.1", {"content-length": "2"}),
            ("POST /api/v1/stream HTTP/1.1", {}),
            ("GET /api/v1/stream HTTP/1.0", {}),
            ("GET /api/v1/stream?x=" + "y" * 9000 + " HTTP/1.1", {}),
            ("GET /api/v1/stream HTTP/1.1", {"x": "y" * 20_000}),
        ):
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            lines = [line, "host: 127.0.0.1", *(f"{n}: {v}" for n, v in (whole | headers).items() if v), "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + b"{}" * ("content-length" in headers))
            async with asyncio.timeout(WAIT_S):
                status = (await reader.readuntil(b"\r\n")).split()[1]
            writer.close()
            assert status[:1] == b"4", (status, line[:50], headers)
    assert not [record for record in caplog.records if record.exc_info]


@on_sqlite
async def test_an_upgrade_behind_an_unanswered_request_is_not_taken(stream: Any) -> None:
    async with stream() as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        writer.write(
            head % b"/api/status"
            + b"\r\n"
            + head % b"/api/v1/stream"
            + b"connection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with asyncio.timeout(WAIT_S):
            answers = await reader.read(1 << 20)
            while part := await reader.read(1 << 20):
                answers += part
        writer.close()
        assert (answers.count(b"HTTP/1.1 200"), answers.count(b"HTTP/1.1")) == (1, 1)
