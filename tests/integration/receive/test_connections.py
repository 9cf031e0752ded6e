"""Connections of strangers: what they send, how long they take and how many they are is bounded before any secret."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import pytest

from gapless.client_address import TrustedProxies
from gapless.connections.limits import ConnectionLimits
from gapless.connections.register import CloseReason, ConnectionPhase, Connections
from gapless.ledger.engine import open_store
from gapless.metrics import Metrics
from gapless.receive.bodies import Bodies
from gapless.receive.endpoint import read_body
from gapless.receive.webhook import Outcome
from gapless.settings import PublicSettings, Settings

pytestmark = pytest.mark.anyio
LIMITS = ConnectionLimits()
HEALTHZ = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
NEW_SECRET = "whsec_after"
WAIT_S = 30


@dataclass
class Peer:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def status(self) -> int:
        """The status of the next answer, once it has come whole."""
        async with asyncio.timeout(WAIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await self.reader.readexactly(int(length or 0))
        return int(head.split()[1])

    @property
    def is_reset(self) -> bool:
        return self.reader.exception() is not None

    async def rest(self) -> bytes:
        """What comes until the connection is closed."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def flood(self, piece: bytes, most: int) -> int:
        """Send `piece` again and again until there is an answer, or `most` bytes are sent; return how many were."""
        sent = 0
        answer = asyncio.ensure_future(self.reader.readuntil(b"\r\n\r\n"))
        while sent < most and not answer.done():
            try:
                await self.send(piece)
            except ConnectionError:
                break
            sent += len(piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_S):
            self.flooded = int((await answer).split()[1])
        return sent


class Strangers:
    """A receiver, and connections to it."""

    def __init__(self, setup: Any) -> None:
        self.setup = setup
        self.peers: list[Peer] = []

    async def connect(self, host: str = "127.0.0.1") -> Peer:
        port = int(self.setup.url.rpartition(":")[2])
        peer = Peer(*await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0)))
        self.peers.append(peer)
        name = peer.writer.get_extra_info("sockname")
        await self.until(
            lambda: name in {each.client for each in self.connections._all} or peer.reader.at_eof() or peer.is_reset
        )
        return peer

    @property
    def connections(self) -> Any:
        return self.setup.listener.connections

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not true():
                await asyncio.sleep(0.005)

    async def in_phase(self, phase: ConnectionPhase, count: int = 1) -> None:
        await self.until(lambda: self.connections.count_in(phase) == count)

    def pass_(self, seconds: float) -> None:
        """Let time pass, and let the connections be looked at."""
        self.setup.monotonic.pass_(seconds)
        self.connections.sweep()

    def closed(self, reason: str) -> float:
        counted: float = self.setup.counted("connections_closed_total", listener="public", reason=reason)
        return counted

    def webhook(self, key: str, *more: bytes, filler: int = 0, secret: str = NEW_SECRET, length: int = 0) -> bytes:
        """A whole request, `more` headers among its own."""
        body = self.setup.event(key, filler="x" * filler)
        signed = self.setup.signature(body, secret)["Stripe-Signature"].encode()
        lines = [b"host: x", b"stripe-signature: " + signed, b"content-length: %d" % (length or len(body)), *more]
        return b"POST /webhooks/acme HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture
def strangers(serve_on: Any, sqlite_url: str) -> Any:
    """`async with strangers(limits=…) as them`."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[Strangers]:
        store = open_store(sqlite_url)
        async with serve_on(store, **options) as setup:
            them = Strangers(setup)
            yield them
            for peer in them.peers:
                peer.writer.transport.abort()
        await store.close()

    return start


# --- bytes -----------------------------------------------------------------------------------------------------------

BEGIN = b"POST /webhooks/acme HTTP/1.1\r\nhost: x\r\n"
CHUNKED = BEGIN + b"transfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "value": (BEGIN + b"a: ", b"v" * 8192, 431),
    "name": (BEGIN, b"n" * 8192, 431),
    "headers": (BEGIN, b"a: 1\r\n" * 100, 431),
    "blank-lines": (b"", b"\r\n" * 4096, 431),
    "url": (b"GET /", b"u" * 8192, 414),
    "trailer": (CHUNKED + b"1\r\nx\r\n0\r\na: ", b"t" * 8192, 431),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: 1\r\n" * 100, 431),
    "chunk-extension": (CHUNKED + b"1;a=", b"e" * 8192, 431),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_what_never_ends_is_refused_soon(strangers: Any, kind: str) -> None:
    begin, piece, status = ENDLESS[kind]
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(begin)
        assert await peer.flood(piece, 20_000_000) < 20_000_000
        assert peer.flooded == status
        await them.until(lambda: them.closed("headers_too_large") + them.closed("url_too_long") == 1)
        assert them.setup.counted("webhooks_total", source="acme", outcome="accepted") == 0


async def test_a_head_of_129_headers_is_refused_and_one_of_128_is_not(strangers: Any) -> None:
    async with strangers() as them:
        for many, status in ((125, 200), (126, 431)):
            peer = await them.connect()
            await peer.send(them.webhook(f"evt_{many}", *[b"a: 1"] * many))
            assert await peer.status() == status


async def test_a_long_head_with_a_long_body_behind_it_is_taken(strangers: Any) -> None:
    async with strangers() as them:
        for _ in range(2):
            peer = await them.connect()
            await peer.send(them.webhook("evt_1", b"a: " + b"v" * 30_000, filler=200_000))
            assert await peer.status() == 200
        assert await them.setup.events() == {"evt_1": 2}


async def test_the_limit_of_the_head_can_be_set(strangers: Any) -> None:
    async with strangers(limits=replace(LIMITS, head_bytes=4096)) as them:
        for size, status in ((3_000, 200), (5_000, 431)):
            peer = await them.connect()
            await peer.send(them.webhook(f"evt_{size}", b"a: " + b"v" * size))
            assert await peer.status() == status


async def test_a_trailer_is_never_taken_for_a_header(strangers: Any) -> None:
    async with strangers() as them:
        body = them.setup.event("evt_1")
        signed = them.setup.signature(body)["Stripe-Signature"].encode()
        whole = b"%x\r\n" % len(body) + body + b"\r\n0\r\nstripe-signature: " + signed + b"\r\n\r\n"
        peer = await them.connect()
        await peer.send(CHUNKED)
        await them.in_phase(ConnectionPhase.AWAITED)
        await peer.send(whole)
        assert await peer.status() == 401
        assert await them.setup.events() == {}


# --- time ------------------------------------------------------------------------------------------------------------

SLOW = {
    "silent": (b"", ConnectionPhase.FRESH, 10, b"", "no_request"),
    "half a head": (BEGIN, ConnectionPhase.HEAD, 10, b"HTTP/1.1 408 ", "head_late"),
    "no body": (BEGIN + b"content-length: 9\r\n\r\n", ConnectionPhase.AWAITED, 10, b"HTTP/1.1 408 ", "body_late"),
    "half a body": (BEGIN + b"content-length: 9\r\n\r\nx", ConnectionPhase.BODY, 30, b"HTTP/1.1 408 ", "body_late"),
}


@pytest.mark.parametrize("kind", SLOW)
async def test_who_takes_too_long_is_closed(strangers: Any, kind: str) -> None:
    sent, phase, within_s, answer, reason = SLOW[kind]
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(sent)
        await them.in_phase(phase)
        them.pass_(within_s - 5)
        assert len(them.connections) == 1
        them.pass_(6)
        assert (await peer.rest()).startswith(answer)
        assert them.closed(reason) == 1
        peer.writer.close()
        await them.until(lambda: len(them.connections) == 0)


async def test_a_connection_is_kept_for_a_minute_between_requests(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        for _ in range(2):
            await peer.send(HEALTHZ)
            assert await peer.status() == 200
            await them.in_phase(ConnectionPhase.IDLE)
            them.pass_(60)
        them.pass_(10)
        assert await peer.rest() == b""
        assert them.closed("idle") == 1


async def test_a_body_that_trickles_after_its_answer_is_closed_too(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nx")
        assert await peer.status() == 405
        await peer.send(b"x")
        await them.in_phase(ConnectionPhase.BODY)
        them.pass_(31)
        assert await peer.rest() == b""


async def test_a_peer_that_does_not_end_a_closed_connection_is_reset(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(b"nonsense\r\n\r\n")
        await them.in_phase(ConnectionPhase.CLOSING)
        them.pass_(6)
        assert len(them.connections) == 0


# --- number ----------------------------------------------------------------------------------------------------------


async def test_of_too_many_the_one_that_waits_longest_is_closed(strangers: Any) -> None:
    async with strangers(limits=replace(LIMITS, most=4)) as them:
        idle = await them.connect()
        half = await them.connect()
        await half.send(BEGIN)
        await them.in_phase(ConnectionPhase.HEAD)
        await idle.send(HEALTHZ)
        assert await idle.status() == 200
        others = [await them.connect(f"127.0.0.{2 + number}") for number in range(4)]
        assert [await half.rest(), await idle.rest()] == [b"", b""]
        assert len(them.connections) == 4
        await others[3].send(them.webhook("evt_1"))
        assert await others[3].status() == 200
        assert them.closed("gave_way") == 2


async def test_one_address_takes_no_room_of_others(strangers: Any) -> None:
    async with strangers(limits=replace(LIMITS, per_address=3)) as them:
        vendor = await them.connect("127.0.0.9")
        for _ in range(6):
            await them.connect()
        assert len(them.connections) == 4
        await vendor.send(them.webhook("evt_1"))
        assert await vendor.status() == 200


async def test_no_request_under_way_gives_way(strangers: Any) -> None:
    async with strangers(limits=replace(LIMITS, most=2), writes=False) as them:
        for number in range(2):
            peer = await them.connect(f"127.0.0.{2 + number}")
            await peer.send(them.webhook(f"evt_{number}"))
        await them.in_phase(ConnectionPhase.ANSWER, 2)
        late = await them.connect()
        assert await late.rest() == b""
        assert them.closed("over_limit") == 1
        assert them.connections.count_in(ConnectionPhase.ANSWER) == 2


async def test_behind_a_proxy_the_client_has_the_cap_and_not_the_proxy(strangers: Any) -> None:
    limits = replace(
        LIMITS, per_address=2, trusted=TrustedProxies(networks=(ip_network("127.0.0.0/8"),), header="x-forwarded-for")
    )
    async with strangers(limits=limits, writes=False) as them:
        for number in range(4):
            peer = await them.connect()
            await peer.send(them.webhook(f"evt_{number}", b"x-forwarded-for: 6.6.6.6, 203.0.113.%d" % (number // 2)))
        await them.in_phase(ConnectionPhase.ANSWER, 4)
        peer = await them.connect()
        await peer.send(them.webhook("evt_5", b"x-forwarded-for: 203.0.113.1, 127.0.0.8"))
        assert await peer.status() == 503


# --- bodies ----------------------------------------------------------------------------------------------------------

LITTLE = Settings(public=PublicSettings(queue_max_bytes=300_000))


async def test_bodies_under_way_count_and_the_oldest_gives_way(strangers: Any) -> None:
    async with strangers(settings=LITTLE) as them:
        first, second = await them.connect(), await them.connect()
        slow, quick = (them.webhook(key, filler=200_000) for key in ("evt_slow", "evt_quick"))
        await first.send(slow[:-10])
        await them.until(lambda: them.setup.receiver.bodies.held > 200_000)
        await second.send(quick)
        assert await second.status() == 200
        await first.send(slow[-10:])
        assert await first.status() == 503
        assert await them.setup.events() == {"evt_quick": 1}
        assert them.setup.receiver.bodies.held == 0


async def test_a_verified_webhook_is_never_refused_for_bodies_of_strangers(strangers: Any) -> None:
    async with strangers(settings=LITTLE) as them:
        stranger, vendor = await them.connect(), await them.connect()
        await stranger.send(them.webhook("evt_0", filler=290_000, secret="nobody's", length=900_000))
        await them.until(lambda: them.setup.receiver.bodies.held > 290_000)
        await vendor.send(them.webhook("evt_1", filler=20_000))
        assert await vendor.status() == 200
        assert them.setup.receiver.bodies.held == 0


async def test_bodies_under_way_hold_half_of_the_room_or_one_largest_body() -> None:
    for largest, held in ((0, 500), (900, 900)):
        bodies = Bodies(1000, lambda: 0, largest)
        for _ in range(20):
            bodies.begin().add(b"x" * 100)
        assert bodies.held == held


async def test_while_a_body_waits_only_what_is_counted_is_held() -> None:
    first, left = {"type": "http.request", "body": b"x" * 60_000, "more_body": True}, []

    async def receive() -> dict[str, str]:
        left.append(first.get("body"))
        return {"type": "http.disconnect"}

    body = Bodies(10**6, lambda: 0).begin()
    assert await read_body(first, receive, body, declared=0, limit=10**6, within_s=WAIT_S) is Outcome.CUT
    assert (left, body.size) == ([None], 60_000)


# --- log -------------------------------------------------------------------------------------------------------------

UPGRADE = b"GET /webhooks/acme HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


async def test_malformed_requests_and_upgrades_are_one_line_a_minute(
    strangers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with strangers() as them:
        caplog.clear()
        for _ in range(15):
            for sent, status in ((b"nonsense\r\n\r\n", 400), (UPGRADE, 405)):
                peer = await them.connect()
                await peer.send(sent)
                assert await peer.status() == status
                peer.writer.close()
        for _ in range(3):
            them.pass_(0.1)
        lines = [record for record in caplog.records if not record.name.startswith("gapless.receive")]
        assert [(record.getMessage(), vars(record)["reasons"]) for record in lines] == [
            ("connections_closed", {"malformed": 15})
        ]


async def test_what_was_closed_last_is_said_when_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections("public", Metrics("test"))
    watching = asyncio.create_task(connections.watch(every_s=60))
    await asyncio.sleep(0)
    connections.count(CloseReason.MALFORMED)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert [vars(record)["reasons"] for record in caplog.records] == [{"malformed": 1}]


# --- as before -------------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(them.webhook("evt_1") + HEALTHZ + b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n" + HEALTHZ)
        assert [await peer.status() for _ in range(4)] == [200, 200, 404, 200]


async def test_what_came_whole_before_nonsense_is_answered_first(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(them.webhook("evt_1") + HEALTHZ + b"nonsense\r\n\r\n")
        assert [await peer.status(), await peer.status()] == [200, 200]
        assert await peer.rest() == b""


async def test_a_broken_body_behind_a_whole_request_is_not_answered_in_its_place(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(them.webhook("evt_1") + CHUNKED + b"not a length\r\n")
        assert await peer.status() == 200
        them.pass_(0.1)
        assert await peer.rest() == b""


async def test_too_many_pipelined_requests_are_answered_in_part(strangers: Any) -> None:
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(HEALTHZ * 40)
        assert (await peer.rest()).count(b"HTTP/1.1 200 OK") == 17


ODD_FORMS = {
    "1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "absolute": (b"GET http://elsewhere/healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    "connect": (b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
}


@pytest.mark.parametrize("form", ODD_FORMS)
async def test_odd_forms_are_answered_as_before(strangers: Any, form: str) -> None:
    sent, status = ODD_FORMS[form]
    async with strangers() as them:
        peer = await them.connect()
        await peer.send(sent)
        assert await peer.status() == status
