"""What strangers at the public listener of a real daemon cost genuine webhooks, in time, memory and descriptors.

Genuine webhooks come at an even pace and are timed from when they were due: in calm, while strangers of one kind
dawdle, and in calm again. The strangers are a process of their own, with addresses of their own; what the daemon closes
is opened anew.
"""

import asyncio
import statistics
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

KINDS = (IDLE, HALF_HEADS, ENDLESS, SLOW_BODIES, NEARLY)
AT_MOST = 1.5
SETTLE_S = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    genuine_per_s: int = 50
    window_s: float = 8.0
    strangers: int = 1050


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
        await _genuine(daemon, plan, 1.0)
        memory_kb, calm = rss_kb(pid), []
        calm.append(await _genuine(daemon, plan, plan.window_s / 2))
        with strangers(daemon.public_port, kind, plan.strangers):
            await asyncio.sleep(SETTLE_S)
            cpu_s = machine.cpu_seconds({pid})
            during = await _genuine(daemon, plan, plan.window_s)
            cpu_s = machine.cpu_seconds({pid}) - cpu_s
            row = {"rss_mb": round(rss_kb(pid) / 1000, 1), "calm_mb": round(memory_kb / 1000, 1),
                   "descriptors": descriptors(pid), "server_cores": round(cpu_s / plan.window_s, 3),
                   "is_ready": await daemon.is_ready()}  # fmt: skip
        await asyncio.sleep(SETTLE_S)
        calm.append(await _genuine(daemon, plan, plan.window_s / 2))
    return {
        **row,
        "acked": during.statuses.get(200, 0),
        "genuine": int(plan.genuine_per_s * plan.window_s),
        "calm_p50_ms": statistics.mean(each.percentile(0.5) for each in calm),
        "p50_ms": during.percentile(0.5),
        "p99_ms": during.percentile(0.99),
    }


async def _genuine(daemon: Gapless, plan: Plan, seconds: float) -> Sender:
    sender = Sender(daemon.public)
    await sender.run(plan.genuine_per_s, seconds, lambda: webhook(daemon.public, secret=WEBHOOK_SECRET), 4)
    return sender


@contextmanager
def strangers(port: int, kind: str, count: int) -> Iterator[None]:
    """Strangers of one kind, in a process of their own."""
    command = [sys.executable, dawdlers.__file__, str(port), kind, str(count)]
    with subprocess.Popen(["nice", *command], stdout=subprocess.PIPE) as process:
        try:
            machine.pin(machine.LOAD_CORE, process.pid)
            assert process.stdout is not None
            assert process.stdout.readline(), "the strangers did not come"
            yield
        finally:
            process.kill()


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """Half of the genuine webhooks are not slower than 1.5 times calm, every one is acknowledged, probes answer."""
    found = []
    for kind in KINDS:
        mine = matching(rows, {"kind": kind})
        ratios = spread(row["p50_ms"] / row["calm_p50_ms"] for row in mine)
        memory = spread(row["rss_mb"] / row["calm_mb"] for row in mine)
        lost = spread(row["genuine"] - row["acked"] + (not row["is_ready"]) for row in mine)
        found += [
            Bar(name=f"p50 of genuine webhooks to calm, {kind}", wanted=AT_MOST, got=ratios, at_most=True),
            Bar(name=f"memory to calm, {kind}", wanted=AT_MOST, got=memory, at_most=True),
            Bar(name=f"genuine webhooks not acknowledged, {kind}", wanted=0, got=lost, at_most=True),
        ]
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Times of genuine webhooks, memory and descriptors, by kind of strangers."""
    heads = ["strangers", "acked", "calm p50 ms", "p50 ms", "p99 ms", "calm MB", "MB", "descriptors", "server cores"]
    names = ("calm_p50_ms", "p50_ms", "p99_ms", "calm_mb", "rss_mb", "descriptors", "server_cores")
    lines = []
    for kind in KINDS:
        found = matching(rows, {"kind": kind})
        acked = f"{sum(row['acked'] for row in found)}/{sum(row['genuine'] for row in found)}"
        lines.append([kind, acked, *(spread(row[name] for row in found) for name in names)])
    return table(heads, lines)


def _line(row: dict[str, Any]) -> str:
    return (
        f"round {row['round'] + 1}: {row['kind']}: p50 {row['p50_ms']} ms (calm {row['calm_p50_ms']:.1f}), "
        f"p99 {row['p99_ms']} ms, {row['rss_mb']} MB (calm {row['calm_mb']}), {row['descriptors']} descriptors, "
        f"{row['acked']}/{row['genuine']} acknowledged"
    )
