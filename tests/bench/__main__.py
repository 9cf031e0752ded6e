"""`python tests/bench`: measures, prints tables, writes JSON."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import accounts
import agreement
import forged
import ingest
import machine
import passes
import recovery
import strangers
from figures import Bar, table
from stores import Places

INGEST, PASSES, ACCOUNTS, FORGED = "ingest", "passes", "accounts", "forged"
RECOVERY, AGREEMENT, STRANGERS = "recovery", "agreement", "strangers"
PARTS = [INGEST, PASSES, ACCOUNTS, FORGED, STRANGERS, RECOVERY, AGREEMENT]


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
        if INGEST in asked.only:
            rows = ingest.measure(places, ingest.QUICK if asked.quick else ingest.Plan(rounds=asked.rounds), _note)
            bars += ingest.bars(rows)
            found[INGEST] = rows
            _show(ingest.tables(rows), found, asked.json)
        if PASSES in asked.only:
            rows = passes.measure(places, passes.QUICK if asked.quick else passes.Plan(rounds=asked.rounds), _note)
            bars += passes.bars(rows, places.kinds)
            found[PASSES] = rows
            _show(passes.tables(rows), found, asked.json)
        if ACCOUNTS in asked.only:
            plan = accounts.QUICK if asked.quick else accounts.Plan(rounds=asked.rounds)
            rows = accounts.measure(places, plan, _note)
            bars += accounts.bars(rows, plan)
            found[ACCOUNTS] = rows
            _show(accounts.tables(rows), found, asked.json)
        if FORGED in asked.only:
            rows = forged.measure(places, forged.QUICK if asked.quick else forged.Plan(rounds=asked.rounds), _note)
            bars += forged.bars(rows)
            found[FORGED] = rows
            _show(forged.tables(rows), found, asked.json)
        if STRANGERS in asked.only:
            plan = strangers.QUICK if asked.quick else strangers.Plan(rounds=asked.rounds)
            rows = strangers.measure(Path(folder), plan, _note)
            bars += strangers.bars(rows)
            found[STRANGERS] = rows
            _show(strangers.tables(rows), found, asked.json)
        if AGREEMENT in asked.only:
            rows = agreement.measure(places, agreement.QUICK if asked.quick else agreement.CASES, _note)
            bars += agreement.bars(rows)
            found[AGREEMENT] = rows
            _show(agreement.tables(rows), found, asked.json)
    if RECOVERY in asked.only:
        rows = recovery.measure(recovery.QUICK if asked.quick else recovery.Plan(), _note)
        bars += recovery.bars(rows)
        found[RECOVERY] = rows
        _show(recovery.tables(rows), found, asked.json)
    found["bars"] = [bar.row() for bar in bars]
    _show(table(["bar", "wanted", "median (least-most)", ""], [bar.row() for bar in bars]), found, asked.json)
    _note(f"every round is in {asked.json}")


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
