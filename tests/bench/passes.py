"""How many events a second a pass compares with the ledger, against the bare cost of listing them."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import machine
import reading
from feed import Feed, key
from figures import Bar, matching, paired, spread, table
from machine import Foreign
from stores import Places, count_events, opened

from gapless.ledger.engine import dialect
from gapless.ledger.recorder import EVENT_COLUMNS
from gapless.ledger.streams import streams
from gapless.ledger.tables import EVENT

LIST_ONLY = "list only"
SEQUENTIAL, SLICED = 1, 8
MISSING_EVERY = 1000
"""One event in so many is not in the ledger."""
VENDOR_RATE = 100
BLOCK = 5_000
MOST_TIMES, MOST_MB, LEAST_SPEED_UP = 1.3, 150, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is listed: how many events, and how long the provider takes over a request."""

    events: int
    delay_ms: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    events: int = 1_000_000
    delayed_events: int = 25_600

    @property
    def cases(self) -> list[Case]:
        """At once and unlimited; and 100 ms away at the vendor's rate."""
        near = Case(events=self.events, delay_ms=0, rate=reading.UNLIMITED)
        far = Case(events=self.delayed_events, delay_ms=100, rate=VENDOR_RATE)
        return [case for case in (near, far) if case.events]


QUICK = Plan(rounds=1, events=10_000, delayed_events=0)


def measure(places: Places, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds of all cases. Variants take turns within a round; every other round goes the other way round."""
    measured: list[dict[str, Any]] = []
    for case in plan.cases:
        with ExitStack() as held:
            feed = Feed(case.events, int(time.time()) - 300, 0)
            filled = {kind: held.enter_context(places.fresh(kind)) for kind in places.kinds}
            for url in filled.values():
                asyncio.run(fill(url, feed))
            turns = [(kind, slices) for slices in (SEQUENTIAL, SLICED) for kind in (LIST_ONLY, *places.kinds)]
            for number in range(plan.rounds):
                for kind, slices in turns if number % 2 == 0 else reversed(turns):
                    row, foreign = machine.quietest(
                        lambda foreign, k=kind, s=slices: _once(places, case, feed, k, filled.get(k, ""), s, foreign)
                    )
                    measured.append({"round": number, **row, "foreign_cores": round(foreign, 3)})
                    note(_line(measured[-1]))
    return measured


def _once(
    places: Places, case: Case, feed: Feed, kind: str, filled: str, slices: int, foreign: Foreign
) -> dict[str, Any]:
    """One reading, of a ledger of its own."""
    with ExitStack() as held:
        url = held.enter_context(places.fresh(kind, like=filled)) if filled else ""
        address = held.enter_context(_fed(case, feed))
        oldest = feed.created(feed.events - 1)
        command = [
            sys.executable, str(Path(__file__).with_name("reading.py")), "--feed", address, "--start", str(oldest),
            "--slices", str(slices), "--rate", str(case.rate), "--store", url,
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            ours = machine.named("postgres") if url.startswith("postgresql") else set()
            with foreign.watch(lambda: machine.children() | ours):
                output = process.stdout.read()
        if not output:
            raise RuntimeError(f"the reading failed: {' '.join(command[1:])}")
        row = {"reader": kind, "slices": slices, "delay_ms": case.delay_ms, **json.loads(output)}
        busiest = httpx.get(f"{address}/busiest").json()
        if row["listed"] != case.events or (url and count_events(url) != case.events):
            raise AssertionError(f"{case.events} events are listed by the feed; got {row}")
        return {**row, "requests": busiest["requests"], "most_requests_in_a_second": busiest["in_a_second"]}


async def fill(url: str, feed: Feed) -> None:
    """Record the feed's events, all but one in `MISSING_EVERY`, as if their webhooks had come."""
    async with opened(url) as store:
        source = await reading.register(
            store, reading.provider_at("http://feed"), datetime.fromtimestamp(feed.created(feed.events - 1), UTC)
        )
        stream_id = (await store.read(lambda c: streams(c, source.id)))[0].id
        for first in range(0, feed.events, BLOCK):
            block = [
                _recorded(feed, number, source.id, stream_id)
                for number in range(first, min(first + BLOCK, feed.events))
                if number % MISSING_EVERY != MISSING_EVERY // 2
            ]
            await store.write(lambda c, block=block: dialect.insert_many(c, EVENT, EVENT_COLUMNS, block))


def _recorded(feed: Feed, number: int, source_id: int, stream_id: int) -> tuple[object, ...]:
    occurred_us = feed.created(number) * 1_000_000
    came_us = occurred_us + 1_000_000
    return (
        source_id, key(number).decode(), stream_id, "invoice.paid", f"in_{number}", None, occurred_us, came_us,
        "webhook", True, None, came_us, 1, None, 0,
        None,  # livemode
    )  # fmt: skip


@contextmanager
def _fed(case: Case, feed: Feed) -> Iterator[str]:
    program, delay_s = str(Path(__file__).with_name("feed.py")), case.delay_ms / 1000
    command = [sys.executable, program, str(feed.events), str(feed.newest), str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def bars(rows: Sequence[dict[str, Any]], kinds: Sequence[str]) -> list[Bar]:
    """What the issue asks for."""
    found = []
    for kind in kinds:
        for slices in SEQUENTIAL, SLICED:
            where = {"slices": slices, "delay_ms": 0}
            mine = matching(rows, {**where, "reader": kind})
            times = paired(rows, {**where, "reader": kind}, {**where, "reader": LIST_ONLY}, "seconds")
            name = f"pass, {kind}, {slices} at once"
            found.append(Bar(name=f"{name}: time, of listing only", wanted=MOST_TIMES, got=times, at_most=True))
            peak = spread(row["peak_mb"] for row in mine) if mine else None
            found.append(Bar(name=f"{name}: peak MB", wanted=MOST_MB, got=peak, at_most=True))
        far = {"reader": kind, "delay_ms": 100}
        faster = paired(rows, {**far, "slices": SLICED}, {**far, "slices": SEQUENTIAL}, "events_per_s")
        found.append(Bar(name=f"pass, {kind}, 100 ms: 8 slices, of one", wanted=LEAST_SPEED_UP, got=faster))
        asked = [row["most_requests_in_a_second"] for row in matching(rows, {**far, "slices": SLICED})]
        most = spread(asked) if asked else None
        found.append(
            Bar(name=f"pass, {kind}, 100 ms: requests in a second", wanted=VENDOR_RATE, got=most, at_most=True)
        )
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Speed and memory by delay, slices and store."""
    heads = [
        "reader",
        "delay ms",
        "slices",
        "events",
        "events/s",
        "time, of list only",
        "peak MB",
        "cores",
        "most req/s",
    ]
    lines = []
    names = ("reader", "delay_ms", "slices")
    for values in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        mine = dict(zip(names, values, strict=True))
        found = matching(rows, mine)
        times = paired(rows, mine, {**mine, "reader": LIST_ONLY}, "seconds") if mine["reader"] != LIST_ONLY else "-"
        figures = [spread(row[name] for row in found) for name in ("events_per_s", "peak_mb", "cores")]
        most = max(row["most_requests_in_a_second"] for row in found)
        events = f"{found[0]['listed']:,}"
        lines.append([*values, events, figures[0], times or "-", *figures[1:], most])
    return table(heads, lines)


def _line(row: dict[str, Any]) -> str:
    return (
        f"round {row['round'] + 1}: {row['reader']}, {row['slices']} at once, {row['delay_ms']} ms: "
        f"{row['events_per_s']:,.0f} events/s, {row['peak_mb']} MB, found {row['found']}, "
        f"others used {row['foreign_cores']:.2f} cores"
    )
