"""How many webhooks a second are durably acknowledged, and how soon."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from figures import Bar, matching, paired, spread, table
from machine import Foreign
from receiver import BARE, GAPLESS, SECRET, SESSION, VARIANTS
from stores import POSTGRESQL, SQLITE, Places, count_events

SCRIPT = Path(__file__).with_name("webhooks.lua")
WARM_UP_S = 1
BAR_AT = 64
OF_BARE = {SQLITE: 0.60, POSTGRESQL: 0.75}
OF_SESSION = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    connections: Sequence[int] = (1, 16, 64, 256)
    window_s: int = 3


QUICK = Plan(rounds=1, connections=(16,), window_s=1)


@dataclass(slots=True, kw_only=True)
class Server:
    """A server under load. `acked` is how many 2xx it has answered since it started, spoilt windows included."""

    process: "subprocess.Popen[str]"
    address: str
    uses_postgres: bool
    acked: int = 0

    def load(self, connections: int, window_s: int, foreign: Foreign) -> dict[str, Any]:
        """One run of wrk, on this process's core."""
        command = [
            "wrk", "-t1", f"-c{connections}", f"-d{window_s}s", "-s", str(SCRIPT), self.address,
            "--", secrets.token_hex(8), SECRET,
        ]  # fmt: skip
        server_s = machine.cpu_seconds({self.process.pid})
        database_s = machine.cpu_seconds(self._databases())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
            assert wrk.stdout is not None
            with foreign.watch(lambda: machine.children() | self._databases()):
                told = json.loads(wrk.stdout.read().strip().rpartition("\n")[2])
            load_s = machine.cpu_seconds({wrk.pid})
        acked, seconds = told["answers"] - told["not_2xx"], told["seconds"]
        self.acked += acked
        server_s = machine.cpu_seconds({self.process.pid}) - server_s
        database_s = machine.cpu_seconds(self._databases()) - database_s
        return {
            "connections": connections,
            "acked_per_s": round(acked / seconds, 1),
            **{name: told[name] for name in ("p50_ms", "p99_ms", "not_2xx", "broken")},
            "server_cores": round(server_s / seconds, 2),
            "database_cores": round(database_s / seconds, 2),
            "load_cores": round(load_s / seconds, 2),
        }

    def _databases(self) -> set[int]:
        """Every PostgreSQL process of the machine counts as ours while one is used."""
        return machine.named("postgres") if self.uses_postgres else set()


def measure(places: Places, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds. Within a round the variants take turns; every other round goes the other way round."""
    measured: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        turns = [(kind, variant) for kind in places.kinds for variant in VARIANTS]
        for kind, variant in turns if number % 2 == 0 else reversed(turns):
            for row in _windows(places, kind, variant, plan):
                measured.append({"round": number, "store": kind, "variant": variant, **row})
                note(_line(measured[-1]))
    return measured


def _windows(places: Places, kind: str, variant: str, plan: Plan) -> Iterator[dict[str, Any]]:
    """One fresh store and server, at each number of connections."""
    with places.fresh(kind) as url, served(variant, url) as server:
        server.load(16, WARM_UP_S, Foreign())
        for connections in plan.connections:
            row, foreign = machine.quietest(lambda foreign, c=connections: server.load(c, plan.window_s, foreign))
            stored = count_events(url)
            if variant != BARE and stored < server.acked:
                raise AssertionError(f"{variant}, {kind}: {server.acked} webhooks were acknowledged, {stored} stored")
            yield {**row, "foreign_cores": round(foreign, 3), "acked": server.acked, "stored": stored}


@contextmanager
def served(variant: str, url: str) -> Iterator[Server]:
    """The server `variant` with the ledger at `url`, for as long as the block."""
    command = [sys.executable, str(Path(__file__).with_name("receiver.py")), variant, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the server did not start; to see why: python {' '.join(command[1:])}")
            yield Server(process=process, address=address, uses_postgres=url.startswith("postgresql"))
        finally:
            process.terminate()


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """What the issue asks for, at `BAR_AT` connections."""
    found = []
    for kind, wanted in OF_BARE.items():
        for other, goal in (BARE, wanted), (SESSION, OF_SESSION):
            where = {"store": kind, "connections": BAR_AT}
            got = paired(rows, {**where, "variant": GAPLESS}, {**where, "variant": other}, "acked_per_s")
            found.append(Bar(name=f"acknowledged per second, of {other}, {kind}", wanted=goal, got=got))
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Rates and latencies by store, connections and variant, and the ratios."""
    heads = ["webhooks", "connections", "acked/s", "of bare", "of session", "p50 ms", "p99 ms", "server cores"]
    lines = []
    for where in _places_of(rows):
        for variant in VARIANTS:
            mine = {**where, "variant": variant}
            if found := matching(rows, mine):
                ratios = [
                    paired(rows, mine, {**where, "variant": other}, "acked_per_s") if other != variant else None
                    for other in (BARE, SESSION)
                ]
                rate, p50, p99, cores = (
                    spread(row[name] for row in found) for name in ("acked_per_s", "p50_ms", "p99_ms", "server_cores")
                )
                name = f"{variant}, {where['store']}"
                lines.append([name, where["connections"], rate, *(each or "-" for each in ratios), p50, p99, cores])
    return table(heads, lines)


def _places_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    known = dict.fromkeys((row["store"], row["connections"]) for row in rows)
    return [
        {"store": kind, "connections": connections}
        for kind, connections in sorted(known, key=lambda k: (k[0] != SQLITE, k[1]))
    ]


def _line(row: dict[str, Any]) -> str:
    return (
        f"round {row['round'] + 1}: {row['variant']}, {row['store']}, {row['connections']} connections: "
        f"{row['acked_per_s']:,.0f}/s, p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, "
        f"others used {row['foreign_cores']:.2f} cores"
    )
