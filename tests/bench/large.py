"""How soon the console, the API and the metrics answer from a large ledger.

The ledger is made by SQL: events a second apart with payloads, one in a thousand missed, all delivered but the last
ones, which wait for a destination that is paused. Then a real daemon is asked over HTTP.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from figures import Bar, matching, spread, table
from sqlalchemy import Connection, text
from stores import POSTGRESQL, SQLITE, Places, opened

from gapless.domain import HOUR_US, from_us
from gapless.ledger.engine import Store

sys.path.append(str(Path(__file__).parents[1] / "support"))
from outside import Gapless, free_port, running

SOURCE: Final = "stripe-live"
AT_MOST_MS: Final = 300.0
SECOND_US: Final = 1_000_000
BLOCK: Final = 100_000
DESTINATION: Final = """
[[destination]]
name = "consumer"
url = "http://127.0.0.1:{port}/hook"
secret_env = "CONSUMER_SECRET"
allow = ["127.0.0.1"]
since = "2020-01-01"
"""
NUMBERS: Final = {
    SQLITE: "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)",
    POSTGRESQL: "WITH numbers(n) AS (SELECT generate_series(CAST(:first AS bigint), CAST(:last AS bigint)))",
}
BODY: Final = """'{"id":"evt_' || n || '","type":"type.' || (n % 20) || '","data":{"object":{"amount":' || n || '}}}'"""
AS_BYTES: Final = {SQLITE: f"CAST({BODY} AS BLOB)", POSTGRESQL: f"convert_to({BODY}, 'UTF8')"}
AT: Final = "CAST(:from_us AS bigint) + n * 1000000"
COLUMNS: Final = {
    "payload": {"id": "n", "body": "{body}", "stored_us": AT},
    "event": {
        "seq": "n",
        "source_id": "1",
        "stream_id": "1",
        '"key"': "'evt_' || n",
        "type": "'type.' || (n % 20)",
        "object_key": "'cus_' || (n % 500000)",
        "occurred_us": AT,
        "first_seen_us": f"{AT} + 2000000",
        "via": "CASE n % 1000 WHEN 0 THEN 'list' ELSE 'webhook' END",
        "expected": "true",
        "missed_cause": "CASE n % 1000 WHEN 0 THEN 'unexplained' END",
        "webhook_us": f"CASE n % 1000 WHEN 0 THEN NULL ELSE {AT} + 2000000 END",
        "webhook_count": "CASE n % 1000 WHEN 0 THEN 0 ELSE 1 END",
        "payload_id": "n",
        "livemode": "true",
    },
    "delivery": {
        "destination_id": "1",
        "event_seq": "n",
        "state": "CASE WHEN n <= :settled THEN 'delivered' ELSE 'pending' END",
        "attempts": "CASE WHEN n <= :settled THEN 1 ELSE 0 END",
        "next_us": f"{AT} + 2000000",
        "created_us": f"{AT} + 2000000",
        "done_us": f"CASE WHEN n <= :settled THEN {AT} + 3000000 END",
    },
}
"""By table: each column, and how its value follows from the number of the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    events: int = 5_000_000
    waiting: int = 1_000_000
    times: int = 7
    """How often each address is asked in a round."""


QUICK = Plan(rounds=1, events=20_000, waiting=5_000, times=2)


def measure(places: Places, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds, one store after the other: a ledger of this size is made once."""
    measured: list[dict[str, Any]] = []
    for kind in places.kinds:
        with places.fresh(kind, is_empty=True) as url, tempfile.TemporaryDirectory() as folder:
            measured += asyncio.run(_one(kind, url, Path(folder), plan, note))
    return measured


async def _one(kind: str, url: str, folder: Path, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    options: dict[str, Any] = {
        "folder": folder,
        "store_url": url,
        "api": "http://127.0.0.1:9",
        "destinations": DESTINATION.format(port=free_port()),
    }
    await Gapless(**options).call("db", "upgrade")
    async with running(Gapless(**options)):
        pass  # it makes its source and its destination
    from_us = int(time.time()) * SECOND_US - (plan.events + 60) * SECOND_US
    began = time.monotonic()
    async with opened(url) as store:
        await _fill(store, kind, plan, from_us)
    note(f"{kind}: {plan.events:,} events made in {time.monotonic() - began:.0f} s")
    rows: list[dict[str, Any]] = []
    async with running(Gapless(**options)) as daemon, _asking(daemon) as client:
        for number in range(plan.rounds):
            for name, path in _addresses(plan, number, from_us).items():
                taken = [await _timed(client, path) for _ in range(plan.times)]
                ms = median(taken)
                rows.append({"round": number, "variant": kind, "page": name, "ms": ms, "longest_ms": max(taken)})
            shown = ", ".join(f"{row['page']} {row['ms']:.0f}" for row in matching(rows, {"round": number}))
            note(f"round {number + 1}: {kind}, medians in ms: {shown}")
    return rows


async def _fill(store: Store, kind: str, plan: Plan, from_us: int) -> None:
    await store.write(_pause)
    settled = plan.events - plan.waiting
    for first in range(1, plan.events + 1, BLOCK):
        last = min(first + BLOCK - 1, plan.events)
        await store.write(_add_events, kind=kind, first=first, last=last, settled=settled, from_us=from_us)
    if kind == POSTGRESQL:
        await store.write(_as_if_inserted, events=plan.events)


def _pause(connection: Connection) -> None:
    connection.execute(text("UPDATE destination SET paused_us = 1, paused_by = 'bench', paused_reason = 'bench'"))


def _add_events(connection: Connection, kind: str, first: int, last: int, settled: int, from_us: int) -> None:
    for name, columns in COLUMNS.items():
        values = ", ".join(columns.values()).replace("{body}", AS_BYTES[kind])
        statement = text(f"INSERT INTO {name} ({', '.join(columns)}) {NUMBERS[kind]} SELECT {values} FROM numbers")
        asked = {"first": first, "last": last, "settled": settled, "from_us": from_us}
        connection.execute(statement, {name: value for name, value in asked.items() if f":{name}" in statement.text})


def _as_if_inserted(connection: Connection, events: int) -> None:
    """Do what PostgreSQL does by itself for rows that come one by one: its sequences and its statistics."""
    for name, column in (("event", "seq"), ("payload", "id")):
        connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), {events + 100_000})"))
    connection.execute(text("ANALYZE"))


def _addresses(plan: Plan, number: int, from_us: int) -> dict[str, str]:
    """Return what is asked for in a round, by name: of each kind of page one that was not asked for before."""
    n = plan.events * (2 * number + 1) // (2 * plan.rounds)
    hour = {"since": _time(from_us + n * SECOND_US - HOUR_US), "until": _time(from_us + n * SECOND_US)}
    by_id, by_object = urlencode({"id": f"evt_{n}"}), urlencode({"object": f"cus_{n % 500_000}", "source": SOURCE})
    by_type = urlencode({"type": f"type.{number % 20}", **hour})
    return {
        "overview": "/",
        "search by id": f"/events?{by_id}",
        "search by object": f"/events?{by_object}",
        "search by type and time": f"/events?{by_type}",
        "event": f"/events/{SOURCE}/evt_{n}",
        "missed": "/missed",
        "metrics": "/metrics",
        "API: status": "/api/v1/status",
        "API: by id": f"/api/v1/events?{by_id}",
        "API: by object": f"/api/v1/events?{by_object}",
        "API: by type and time": f"/api/v1/events?{by_type}",
        "API: event": f"/api/v1/events/{SOURCE}/evt_{n}",
    }


def _time(us: int) -> str:
    return from_us(us).strftime("%Y-%m-%dT%H:%M:%SZ")


@asynccontextmanager
async def _asking(daemon: Gapless) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=daemon.private, trust_env=False, timeout=120) as client:
        yield client


async def _timed(client: httpx.AsyncClient, path: str) -> float:
    """Return the milliseconds until the whole answer was there. Raises `httpx.HTTPStatusError`."""
    began = time.monotonic()
    answer = await client.get(path)
    answer.raise_for_status()
    return (time.monotonic() - began) * 1000


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """Every page answers within 300 ms at the median."""
    found = []
    for kind, name in dict.fromkeys((row["variant"], row["page"]) for row in rows):
        got = spread(row["ms"] for row in matching(rows, {"variant": kind, "page": name}))
        found.append(Bar(name=f"ms, {kind}: {name}", wanted=AT_MOST_MS, got=got, at_most=True))
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds of each page, by store; and the longest of all times, the first among them."""
    kinds = list(dict.fromkeys(row["variant"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["page"] for row in rows):
        line = [name]
        for kind in kinds:
            mine = matching(rows, {"variant": kind, "page": name})
            line += [str(spread(row["ms"] for row in mine)), f"{max(row['longest_ms'] for row in mine):.0f}"]
        lines.append(line)
    return table(["page", *(head for kind in kinds for head in (f"{kind}, ms", "longest"))], lines)
