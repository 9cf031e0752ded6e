"""How many deliveries a second a destination gets, with how much waiting, beside the bare client."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from delivering import body
from figures import Bar, matching, paired, spread, table
from machine import Foreign
from sqlalchemy import Connection, insert
from stores import Places, opened

from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, PAYLOAD, SOURCE, STREAM

BARE = "bare"
BLOCK = 10_000
OF_BARE, SAME_COST = 0.5, 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    waiting: Sequence[int] = (20_000, 100_000, 1_000_000)
    at_once: int = 64
    seconds: float = 5


QUICK = Plan(rounds=1, waiting=(4_000,), at_once=8, seconds=1)


def measure(places: Places, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds. The variants take turns within a round, each with a ledger of its own."""
    measured: list[dict[str, Any]] = []
    with ExitStack() as held:
        endpoint = held.enter_context(_handler())
        filled = {
            (kind, waiting): held.enter_context(_filled(places, kind, waiting))
            for kind in places.kinds
            for waiting in plan.waiting
        }
        turns: list[tuple[str, int]] = [(BARE, 0), *filled]
        for number in range(plan.rounds):
            for kind, waiting in turns if number % 2 == 0 else reversed(turns):
                like = filled.get((kind, waiting), "")
                row, foreign = machine.quietest(
                    lambda foreign, k=kind, u=like: _once(places, plan, endpoint, k, u, foreign)
                )
                measured.append(
                    {"round": number, "variant": kind, "waiting": waiting, **row, "foreign_cores": round(foreign, 3)}
                )
                note(_line(measured[-1]))
    return measured


def _once(places: Places, plan: Plan, endpoint: str, kind: str, like: str, foreign: Foreign) -> dict[str, Any]:
    with ExitStack() as held:
        url = held.enter_context(places.fresh(kind, like=like)) if like else ""
        command = [
            sys.executable, str(Path(__file__).with_name("delivering.py")), "--endpoint", endpoint, "--store", url,
            "--at-once", str(plan.at_once), "--seconds", str(plan.seconds),
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            ours = machine.named("postgres") if url.startswith("postgresql") else set()
            with foreign.watch(lambda: machine.children() | ours):
                output = process.stdout.read()
    if not output:
        raise RuntimeError(f"the deliveries failed: {' '.join(command[1:])}")
    row = json.loads(output)
    return {
        **row,
        "per_s": row["delivered"] / row["seconds"],
        "cpu_us": 1_000_000 * row["cpu_s"] / max(row["delivered"], 1),
    }


@contextmanager
def _handler() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("handler.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def _filled(places: Places, kind: str, waiting: int) -> Iterator[str]:
    with places.fresh(kind) as url:
        asyncio.run(fill(url, waiting))
        yield url


async def fill(url: str, waiting: int) -> None:
    """Make so many deliveries that are due, each of an event with a payload."""
    async with opened(url) as store:
        await store.write(_add_rows)
        for first in range(0, waiting, BLOCK):
            await store.write(_owe, first=first, count=min(BLOCK, waiting - first))


def _add_rows(connection: Connection) -> None:
    connection.execute(insert(SOURCE).values(id=1, name="acme", provider="stripe", start_us=0, mode="hybrid"))
    connection.execute(insert(STREAM).values(id=1, source_id=1, name="", watermark_us=0, complete_from_us=0))
    connection.execute(insert(DESTINATION).values(id=1, name="bench", since_us=0))


def _owe(connection: Connection, first: int, count: int) -> None:
    numbers, text = range(first + 1, first + count + 1), body()
    connection.execute(insert(PAYLOAD), [{"id": n, "body": text, "stored_us": 1} for n in numbers])
    events = [
        {
            "seq": n, "source_id": 1, "stream_id": 1, "key": f"evt_{n}", "type": "invoice.paid", "occurred_us": n,
            "first_seen_us": n, "via": "webhook", "payload_id": n,
        }
        for n in numbers
    ]  # fmt: skip
    connection.execute(insert(EVENT), events)
    owed = [{"destination_id": 1, "event_seq": n, "next_us": n, "created_us": n} for n in numbers]
    connection.execute(insert(DELIVERY), owed)


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """What is wanted."""
    found, sizes = list[Bar](), sorted({row["waiting"] for row in rows if row["waiting"]})
    for kind in dict.fromkeys(row["variant"] for row in rows if row["variant"] != BARE):
        for waiting in sizes:
            mine = {"variant": kind, "waiting": waiting}
            got = paired(rows, mine, {"variant": BARE}, "per_s")
            found.append(Bar(name=f"delivery, {kind}, {waiting:,} waiting: of bare", wanted=OF_BARE, got=got))
        if len(sizes) > 1:
            most, least = ({"variant": kind, "waiting": each} for each in (sizes[-1], sizes[0]))
            cost = paired(rows, most, least, "cpu_us")
            name = f"delivery, {kind}: CPU at {sizes[-1]:,} waiting, of {sizes[0]:,}"
            found.append(Bar(name=name, wanted=SAME_COST, got=cost, at_most=True))
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Deliveries a second and their cost, by store and by what waits."""
    heads = ["variant", "waiting", "deliveries/s", "of bare", "CPU us", "peak MB"]
    lines = []
    for variant, waiting in dict.fromkeys((row["variant"], row["waiting"]) for row in rows):
        mine = {"variant": variant, "waiting": waiting}
        found = matching(rows, mine)
        of_bare = "-" if variant == BARE else paired(rows, mine, {"variant": BARE}, "per_s")
        figures = [spread(row[name] for row in found) for name in ("per_s", "cpu_us", "peak_mb")]
        lines.append([variant, f"{waiting:,}", figures[0], of_bare, *figures[1:]])
    return table(heads, lines)


def _line(row: dict[str, Any]) -> str:
    return (
        f"round {row['round'] + 1}: {row['variant']}, {row['waiting']:,} waiting: {row['per_s']:,.0f} deliveries/s, "
        f"{row['cpu_us']:,.0f} us, {row['peak_mb']} MB, others used {row['foreign_cores']:.2f} cores"
    )
