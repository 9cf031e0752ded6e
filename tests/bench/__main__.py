"""`python tests/bench`: measures, prints tables, writes JSON."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accounts
import agreement
import delivery
import forged
import ingest
import large
import machine
import passes
import recovery
import strangers
from figures import Bar, table
from stores import Places

INGEST, DELIVERY, PASSES, ACCOUNTS, FORGED = "ingest", "delivery", "passes", "accounts", "forged"
RECOVERY, AGREEMENT, STRANGERS, LARGE = "recovery", "agreement", "strangers", "large"
MODULES: dict[str, Any] = {
    INGEST: ingest,
    DELIVERY: delivery,
    PASSES: passes,
    ACCOUNTS: accounts,
    FORGED: forged,
    STRANGERS: strangers,
    LARGE: large,
    RECOVERY: recovery,
    AGREEMENT: agreement,
}
PARTS = list(MODULES)


def main() -> None:
    """Read the command line, measure what it names, and say which bars are met."""
    asked = _arguments()
    if INGEST in asked.only and not shutil.which("wrk"):
        sys.exit("the load generator wrk is not there; install it (Debian: apt-get install wrk) or use --only passes")
    machine.pin(machine.LOAD_CORE)
    found: dict[str, object] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine.described()}
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        places = Places(Path(folder), asked.postgres)
        for part in _parts(asked, places, Path(folder)):
            bars += part.bars
            found[part.name] = part.rows
            _show(part.table, found, asked.json)
    found["bars"] = [bar.row() for bar in bars]
    _show(table(["bar", "wanted", "median (least-most)", ""], [bar.row() for bar in bars]), found, asked.json)
    _note(f"every round is in {asked.json}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What was measured of one part."""

    name: str
    rows: list[dict[str, Any]]
    table: str
    bars: list[Bar]


def _parts(asked: argparse.Namespace, places: Places, folder: Path) -> Iterator[Part]:
    """Measure the parts that are asked for, one after the other."""
    for name, module in MODULES.items():
        if name not in asked.only:
            continue
        if module is recovery:
            rows = recovery.measure(recovery.QUICK if asked.quick else recovery.Plan(), _note)
        elif module is agreement:
            rows = agreement.measure(places, agreement.QUICK if asked.quick else agreement.CASES, _note)
        else:
            plan = module.QUICK if asked.quick else module.Plan(rounds=asked.rounds)
            rows = module.measure(folder if module is strangers else places, plan, _note)
        also: tuple[Any, ...] = ()
        if module is passes:
            also = (places.kinds,)
        if module is accounts:
            also = (plan,)
        yield Part(name=name, rows=rows, table=module.tables(rows), bars=module.bars(rows, *also))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything runs")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the figures go (bench.json)")
    parser.add_argument("--folder", type=Path, default=None, help="where SQLite files lie meanwhile: on a real disk")
    parser.add_argument(
        "--postgres",
        default=os.environ.get("GAPLESS_TEST_POSTGRES_URL", ""),
        help="a server on which databases may be made; default: GAPLESS_TEST_POSTGRES_URL; empty: SQLite only",
    )
    return parser.parse_args()


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _show(text: str, found: dict[str, object], path: Path) -> None:
    """Print a table, and keep what was found so far."""
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
