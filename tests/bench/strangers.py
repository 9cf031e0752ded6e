"""What strangers at the public listener of a real daemon cost genuine webhooks, in time, memory and descriptors.

Genuine webhooks come at an even pace and are timed from when they were due, in calm and while strangers of one kind
dawdle. The strangers are a process of their own; what the daemon closes is opened anew at once.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from figures import Bar, matching, spread, table
from forged import Sender, webhook

sys.path.append(str(Path(__file__).parents[1] / "support"))
import dawdlers
from dawdlers import ENDLESS, HALF_HEADS, IDLE, NEARLY, SLOW_BODIES, descriptors, rss_kb
from outside import WEBHOOK_SECRET, Gapless, running

CALM = "calm"
KINDS = (CALM, IDLE, HALF_HEADS, ENDLESS, SLOW_BODIES, NEARLY)
AT_MOST = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    genuine_per_s: int = 50
    window_s: float = 8.0
    strangers: int = 1500


QUICK = Plan(rounds=1, genuine_per_s=20, window_s=2, strangers=200)


def measure(folder: Path, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds on SQLite, a fresh daemon for each kind of strangers; every other round the other way round."""
    measured: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                row = asyncio.run(_one(Path(own), kind, plan))
            measured.append({"round": number, "kind": kind, **row})
            note(_line(measured[-1]))
    return measured


async def _one(folder: Path, kind: str, plan: Plan) -> dict[str, Any]:
    url = f"sqlite:///{folder / 'ledger.db'}"
    async with running(Gapless(folder=folder, store_url=url, api="http://127.0.0.1:9")) as daemon:
        assert daemon.process is not None
        pid = daemon.process.pid
        machine.pin(machine.SERVER_CORE, pid)
        await Sender(daemon.public).run(50, 1, lambda: webhook(daemon.public, secret=WEBHOOK_SECRET), 2)
        before = rss_kb(pid)
        with strangers(daemon.public_port, kind, plan.strangers):
            await asyncio.sleep(0.5)
            cpu, genuine = machine.cpu_seconds({pid}), Sender(daemon.public)
            make = lambda: webhook(daemon.public, secret=WEBHOOK_SECRET)  # noqa: E731
            await genuine.run(plan.genuine_per_s, plan.window_s, make, 4)
            cpu = machine.cpu_seconds({pid}) - cpu
            row = {"rss_mb": round(rss_kb(pid) / 1000, 1), "grown_mb": round((rss_kb(pid) - before) / 1000, 1),
                   "descriptors": descriptors(pid), "server_cores": round(cpu / plan.window_s, 3)}  # fmt: skip
            is_ready = await daemon.is_ready()
    return {
        **row,
        "is_ready": is_ready,
        "acked": genuine.statuses.get(200, 0),
        "genuine": int(plan.genuine_per_s * plan.window_s),
        "p50_ms": genuine.percentile(0.5),
        "p99_ms": genuine.percentile(0.99),
    }


@contextmanager
def strangers(port: int, kind: str, count: int) -> Iterator[None]:
    """Strangers of one kind, in a process of their own."""
    if kind == CALM:
        yield
        return
    command = [sys.executable, dawdlers.__file__, str(port), kind, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            machine.pin(machine.LOAD_CORE, process.pid)
            assert process.stdout is not None
            assert process.stdout.readline(), "the strangers did not come"
            yield
        finally:
            process.kill()


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """Half of the genuine webhooks are not slower than 1.5 times calm, every one is acknowledged, probes answer."""
    calm = {row["round"]: row for row in matching(rows, {"kind": CALM})}
    found = []
    for kind in KINDS[1:]:
        mine = matching(rows, {"kind": kind})
        ratios = [row["p50_ms"] / calm[row["round"]]["p50_ms"] for row in mine]
        found.append(
            Bar(name=f"p50 of genuine webhooks, {kind} to calm", wanted=AT_MOST, got=spread(ratios), at_most=True)
        )
        lost = spread(row["genuine"] - row["acked"] + (not row["is_ready"]) for row in mine)
        found.append(Bar(name=f"genuine webhooks not acknowledged, {kind}", wanted=0, got=lost, at_most=True))
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Times of genuine webhooks, memory and descriptors, by kind of strangers."""
    heads = ["strangers", "acked", "p50 ms", "p99 ms", "rss MB", "grown MB", "descriptors", "server cores"]
    names = ("p50_ms", "p99_ms", "rss_mb", "grown_mb", "descriptors", "server_cores")
    lines = []
    for kind in KINDS:
        found = matching(rows, {"kind": kind})
        acked = f"{sum(row['acked'] for row in found)}/{sum(row['genuine'] for row in found)}"
        lines.append([kind, acked, *(spread(row[name] for row in found) for name in names)])
    return table(heads, lines)


def _line(row: dict[str, Any]) -> str:
    return (
        f"round {row['round'] + 1}: {row['kind']}: p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms, "
        f"{row['rss_mb']} MB, {row['descriptors']} descriptors, {row['acked']}/{row['genuine']} acknowledged"
    )
