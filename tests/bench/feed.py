"""A provider's event list of any length, computed: `python tests/bench/feed.py EVENTS NEWEST DELAY_S`.

Event 0 is the newest, of the second NEWEST; the others lie evenly over `SPAN_S` before it. Nothing is
kept: a key ends in the event's number, so that a cursor costs nothing. `GET /busiest` tells how many
requests were answered, and the most that came within one second. Prints its address.
"""

import asyncio
import sys
from collections import deque
from time import monotonic
from typing import Any, Final
from urllib.parse import parse_qs

import machine
import msgspec

from gapless.cli.commands.serve import run_loop
from gapless.connections.register import Connections
from gapless.daemon.listeners import Listener
from gapless.metrics import Metrics

SPAN_S: Final = 64 * 3600
PAGE: Final = 100
_FILLER = b",".join(
    b'{"id":"il_%04d","object":"line_item","amount":%d,"currency":"eur","description":"Seats on the plan, part %d of '
    b'the month, as agreed","metadata":{"order":"%05d"},"proration":false,"quantity":%d}'
    % (n, n * 1250, n, n * 7919, n)
    for n in range(1, 8)
)
_EVENT = (
    b'{"id":"%b","object":"event","api_version":"2025-03-31.basil","created":%d,"data":{"object":{"id":"in_%d",'
    b'"object":"invoice","amount_due":26250,"currency":"eur","customer":"cus_bench","status":"paid","lines":{"object":'
    b'"list","has_more":false,"data":[' + _FILLER + b']}}},"livemode":false,"pending_webhooks":0,"request":{"id":'
    b'"req_bench","idempotency_key":null},"type":"invoice.paid"}'
)


def key(number: int) -> bytes:
    """The event's id: scattered, and ending in its number."""
    return b"evt_%08x%08x" % (number * 2_654_435_761 & 0xFFFFFFFF, number)


def number_of(event_key: str) -> int:
    """The number in an id."""
    return int(event_key[-8:], 16)


class Feed:
    """The list, as raw ASGI."""

    def __init__(self, events: int, newest: int, delay_s: float) -> None:
        self.events = events
        self.newest = newest
        self._delay_s = delay_s
        self._asked: deque[float] = deque()
        self._requests = self._most = 0

    def created(self, number: int) -> int:
        """When the event occurred, in seconds."""
        return self.newest - number * SPAN_S // self.events

    def page(self, query: dict[str, list[str]]) -> bytes:
        """What Stripe answers to `limit`, `created[gte]`, `created[lt]` and `starting_after`."""
        start, end = 0, self.events
        if "created[lt]" in query:
            start = max(0, self._first_before(int(query["created[lt]"][0])))
        if "created[gte]" in query:
            end = min(end, self._first_before(int(query["created[gte]"][0])))
        if "starting_after" in query:
            start = max(start, number_of(query["starting_after"][0]) + 1)
        stop = min(start + min(PAGE, int(query.get("limit", ["10"])[0])), end)
        rows = b",".join([_EVENT % (key(number), self.created(number), number) for number in range(start, stop)])
        return b'{"object":"list","url":"/v1/events","has_more":%b,"data":[%b]}' % (
            b"true" if stop < end else b"false",
            rows,
        )

    def _first_before(self, second: int) -> int:
        """The number of the newest event that occurred before `second`."""
        return -(-(self.newest - second + 1) * self.events // SPAN_S)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["path"] == "/busiest":
            await _answer(send, msgspec.json.encode({"requests": self._requests, "in_a_second": self._most}))
        else:
            self._count()
            await asyncio.sleep(self._delay_s)
            await _answer(send, self.page(parse_qs(scope["query_string"].decode())))

    def _count(self) -> None:
        now = monotonic()
        self._requests += 1
        self._asked.append(now)
        while self._asked[0] <= now - 1:
            self._asked.popleft()
        self._most = max(self._most, len(self._asked))


async def _live(receive: Any, send: Any) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(feed: Feed) -> None:
    """Serve until the process is terminated."""
    connections = Connections("feed", Metrics("bench"))
    listener = Listener(feed, "127.0.0.1", 0, connections, server_header=False, date_header=False)
    async with asyncio.TaskGroup() as group:
        group.create_task(listener.run())
        await listener.started()
        sys.stdout.write(f"{listener.address}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    machine.pin(machine.LOAD_CORE)
    run_loop(serve(Feed(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
