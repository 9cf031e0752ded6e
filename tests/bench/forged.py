"""What a flood of forgeries costs genuine webhooks, and whether it displaces what an operator kept.

Genuine webhooks come at an even pace and are timed from when they were due; forgeries, of the right form and with a
signature that is nobody's, come beside them. The same against a server that verifies and stores nothing tells what
verifying alone costs.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import machine
from figures import Bar, matching, spread, table
from ingest import Server, served
from receiver import BARE, GAPLESS, SECRET
from sqlalchemy import select
from stores import SQLITE, Places, count_events, opened

from gapless.ledger.tables import QUARANTINE

WANTED_ROWS = 5
"""Of each kind that an operator would look for, quarantined before the flood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    genuine_per_s: int = 100
    forged_per_s: int = 1000
    window_s: float = 10.0


QUICK = Plan(rounds=1, genuine_per_s=50, forged_per_s=300, window_s=2)


@dataclass(slots=True)
class Sender:
    """Sends at an even pace over a few connections, one request at a time on each."""

    address: str
    times_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    async def run(self, per_s: float, seconds: float, make: Callable[[], bytes], connections: int) -> None:
        """Send what `make` makes. A request that its connection is late for is timed from when it was due."""
        began = time.perf_counter()
        count = int(per_s * seconds)
        async with asyncio.TaskGroup() as group:
            for first in range(connections):
                due = (began + number / per_s for number in range(first, count, connections))
                group.create_task(self._one(list(due), make))

    async def _one(self, due: Sequence[float], make: Callable[[], bytes]) -> None:
        async with _connected(self.address) as (reader, writer):
            for at in due:
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                writer.write(make())
                status = await _answer(reader)
                self.times_ms.append((time.perf_counter() - at) * 1000)
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def percentile(self, share: float) -> float:
        """The time that `share` of the requests took at most."""
        return round(sorted(self.times_ms)[int(len(self.times_ms) * share)], 2)


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = head.partition("content-length:")[2].partition("\r\n")[0]
    await reader.readexactly(int(length or 0))
    return int(head.split(" ", 2)[1])


def webhook(address: str, *, secret: str = SECRET, age_s: int = 0, body: bytes | None = None) -> bytes:
    """A whole request: a new event, signed with `secret`."""
    sent_at = int(time.time()) - age_s
    event = {"id": f"evt_{secrets.token_hex(12)}", "object": "event", "type": "invoice.paid", "created": sent_at,
             "livemode": False, "data": {"object": {"id": "in_1", "note": "x" * 1500}}}  # fmt: skip
    body = json.dumps(event).encode() if body is None else body
    signature = hmac.new(secret.encode(), b"%d.%b" % (sent_at, body), hashlib.sha256).hexdigest()
    url = urlsplit(address)
    head = (
        f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n"
        f"stripe-signature: t={sent_at},v1={signature}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def measure(places: Places, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds on SQLite, each server alone and under the flood; every other round the other way round."""
    measured: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        turns = [(variant, flood) for variant in (GAPLESS, BARE) for flood in (0, plan.forged_per_s)]
        for variant, flood in turns if number % 2 == 0 else reversed(turns):
            with places.fresh(SQLITE) as url, served(variant, url) as server:
                row = asyncio.run(_one(server, plan, flood))
                kept = _kept(url) if variant == GAPLESS else {}
                if variant == GAPLESS and count_events(url) < row["acked"]:
                    raise AssertionError(f"{row['acked']} genuine webhooks were acknowledged and not all are stored")
            measured.append({"round": number, "variant": variant, "flood": flood, **row, "kept": kept})
            note(_line(measured[-1]))
    return measured


async def _one(server: Server, plan: Plan, flood: int) -> dict[str, Any]:
    address, genuine, forged = server.address, Sender(server.address), Sender(server.address)
    await Sender(address).run(50, 0.5, lambda: webhook(address), 2)
    for make in _worth_keeping(address):
        await Sender(address).run(1000, WANTED_ROWS / 1000, make, 1)
    before, began = machine.cpu_seconds({server.process.pid}), time.perf_counter()
    forgery = webhook(address, secret="nobody's")
    async with asyncio.TaskGroup() as group:
        group.create_task(genuine.run(plan.genuine_per_s, plan.window_s, lambda: webhook(address), 4))
        if flood:
            group.create_task(forged.run(flood, plan.window_s, lambda: forgery, 32))
    seconds = time.perf_counter() - began
    used = machine.cpu_seconds({server.process.pid}) - before
    await asyncio.sleep(1.0)  # what was refused is kept when nothing else is to be written
    return {
        "acked": genuine.statuses.get(200, 0),
        "genuine": int(plan.genuine_per_s * plan.window_s),
        "refused": forged.statuses.get(401, 0),
        "forged_per_s": round(sum(forged.statuses.values()) / seconds, 1),
        "p50_ms": genuine.percentile(0.5),
        "p99_ms": genuine.percentile(0.99),
        "server_cores": round(used / seconds, 3),
    }


def _worth_keeping(address: str) -> list[Callable[[], bytes]]:
    """What an operator would look for: signed with a secret that we do not know yet, too late, of another shape."""
    return [
        lambda: webhook(address, secret="the secret of tomorrow", body=b'{"kept":"signature"}'),
        lambda: webhook(address, age_s=900, body=b'{"kept":"stale"}'),
        lambda: webhook(address, body=b'{"kept":"malformed"}'),
    ]


def _kept(url: str) -> dict[str, int]:
    """How many rows the quarantine has of each kind that was put there before the flood, and in all."""

    async def count() -> dict[str, int]:
        async with opened(url) as store:
            bodies = await store.read(lambda c: c.execute(select(QUARANTINE.c.body)).scalars().all())
        kinds = ("signature", "stale", "malformed")
        return {kind: sum(kind.encode() in body[:40] for body in bodies) for kind in kinds} | {"all": len(bodies)}

    return asyncio.run(count())


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """A flood slows genuine webhooks by no more than verifying it costs, and displaces nothing."""
    found = []
    verifying = spread(_added(rows, number, BARE, "server_cores") for number in _rounds(rows)).median
    verifying_ms = verifying / max(row["flood"] for row in rows) * 1000
    for name in ("p50_ms", "p99_ms"):
        added = spread(_added(rows, number, GAPLESS, name) for number in _rounds(rows))
        found.append(
            Bar(name=f"added to a genuine webhook, {name}; a forgery is verified in", wanted=round(verifying_ms, 3),
                got=added, at_most=True)
        )  # fmt: skip
    lost = [
        sum(WANTED_ROWS - row["kept"][kind] for kind in ("signature", "stale", "malformed"))
        for row in matching(rows, {"variant": GAPLESS})
    ]
    return [*found, Bar(name="quarantined before and displaced by the flood", wanted=0, got=spread(lost), at_most=True)]


def _rounds(rows: Sequence[dict[str, Any]]) -> list[int]:
    return sorted({row["round"] for row in rows})


def _added(rows: Sequence[dict[str, Any]], number: int, variant: str, name: str) -> float:
    """What the flood adds to `name`."""
    found = {row["flood"]: row[name] for row in matching(rows, {"round": number, "variant": variant})}
    return float(found[max(found)] - found[0])


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Times of genuine webhooks, with and without the flood."""
    heads = ["genuine webhooks", "forged/s", "acked", "p50 ms", "p99 ms", "server cores"]
    lines = []
    for variant in (GAPLESS, BARE):
        for flood in sorted({row["flood"] for row in rows}):
            found = matching(rows, {"variant": variant, "flood": flood})
            p50, p99, cores, rate = (
                spread(row[name] for row in found) for name in ("p50_ms", "p99_ms", "server_cores", "forged_per_s")
            )
            acked = f"{sum(row['acked'] for row in found)}/{sum(row['genuine'] for row in found)}"
            lines.append([variant, rate if flood else "0", acked, p50, p99, cores])
    return table(heads, lines)


def _line(row: dict[str, Any]) -> str:
    return (
        f"round {row['round'] + 1}: {row['variant']}, {row['forged_per_s']:,.0f} forged/s: p50 {row['p50_ms']} ms, "
        f"p99 {row['p99_ms']} ms, {row['server_cores']} cores, kept {row['kept']}"
    )
