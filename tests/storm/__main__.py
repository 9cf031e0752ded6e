"""`python tests/storm`: kills, faults of every kind, and a proof that nothing was lost.

Runs real daemons on SQLite and PostgreSQL between a lying provider and a consumer, with a proxy on each way, and kills,
cuts, silences and deceives them. Then compares what everyone has. Ends with 1 if anything is not as promised.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "support")]

from storm import table  # noqa: E402 - the path is set above
from storm.checks import Verdict, verdicts  # noqa: E402
from storm.course import StormOptions, run_storm  # noqa: E402
from storm.evidence import Emitted, Evidence  # noqa: E402
from storm.faults import Kind  # noqa: E402
from storm.recovery import recoveries  # noqa: E402
from storm.world import POSTGRESQL, SQLITE  # noqa: E402

DAEMON_LOGS = "gapless-*.log"


def main() -> int:
    """Run the storms that are asked for, print the tables, and return the exit code."""
    asked = _arguments()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="gapless-storm-"))
    try:
        evidence = asyncio.run(_run(asked, folder))
    except asyncio.CancelledError:
        _say(f"stopped; logs and ledgers are in {folder}")
        return 2
    by_store = [(each.store, verdicts(each)) for each in evidence]
    text = _report(evidence, by_store)
    sys.stdout.write(text)
    if asked.json:
        asked.json.write_text(json.dumps(_plain(evidence, by_store), indent=1, default=str) + "\n")
    is_met = all(verdict.is_met for _, found in by_store for verdict in found)
    _say(f"logs and ledgers are in {folder}")
    return 0 if is_met else 1


async def _run(asked: argparse.Namespace, folder: Path) -> list[Evidence]:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # so that no daemon and no server is left behind
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    storms = [_options(asked, store) for store in asked.stores]
    if not asked.side_by_side:
        return [await run_storm(each, _place(folder, each.store), _say) for each in storms]
    return list(await asyncio.gather(*(run_storm(each, _place(folder, each.store), _say) for each in storms)))


def _options(asked: argparse.Namespace, store: str) -> StormOptions:
    at, count = asked.stores.index(store), len(asked.stores)
    return StormOptions(
        store=store,
        seed=asked.seed,
        kills=asked.kills * (at + 1) // count - asked.kills * at // count,
        restarts=asked.restarts,
        kills_a_round=asked.kills_a_round,
        minutes=asked.minutes,
        kinds=(_kinds(asked.only) or frozenset(Kind)) - _kinds(asked.without),
        calm_s=asked.calm,
        end_s=asked.end,
    )


def _kinds(names: Sequence[str]) -> frozenset[Kind]:
    """Return the faults of these names, such as `read-only`. Raises `KeyError`."""
    return frozenset(Kind[name.upper().replace("-", "_")] for name in names)


def _place(folder: Path, store: str) -> Path:
    """Make the folder of one storm. Raises `FileExistsError`: a ledger of another storm would spoil it."""
    place = folder / store
    place.mkdir(parents=True)
    return place


def _report(evidence: Sequence[Evidence], by_store: Sequence[tuple[str, Sequence[Verdict]]]) -> str:
    parts = [table.of_storm(evidence), table.of_verdicts(by_store), table.of_recoveries(evidence)]
    problems = table.of_problems(by_store)
    if problems:
        parts.append(f"What is not as promised:\n\n{problems}")
    ended = [f"- {each.store}: {words}" for each in evidence for words in each.ended_by_itself]
    if ended:
        parts.append(
            f"The daemon ended by itself {len(ended)} times, and was started again. The last of them:\n\n{ended[-1]}"
        )
    return "\n\n".join(parts) + "\n"


def _plain(evidence: Sequence[Evidence], by_store: Sequence[tuple[str, Sequence[Verdict]]]) -> dict[str, object]:
    """Return the faults with their recoveries, the verdicts, the samples, and when each event came where."""
    return {
        each.store: {
            "verdicts": [asdict(verdict) for verdict in found],
            "faults": [
                {**asdict(one.fault), "recovered_s": one.took and one.took.total_seconds()} for one in recoveries(each)
            ],
            "ended_by_itself": list(each.ended_by_itself),
            "samples": [asdict(sample) for sample in each.samples],
            "events": [_event(each, event) for event in each.events],
        }
        for each, (_, found) in zip(evidence, by_store, strict=True)
    }


def _event(evidence: Evidence, event: Emitted) -> dict[str, object]:
    return {
        **asdict(event),
        "shown_at": evidence.first_shown_at.get(event.key),
        "acknowledged_at": evidence.first_acknowledged_at.get(event.key),
        "recorded_at": evidence.recorded_at.get(event.key),
        "accepted_at": evidence.accepted_at.get(event.key),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/storm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same plan (1)")
    parser.add_argument("--stores", nargs="+", choices=[SQLITE, POSTGRESQL], default=[SQLITE, POSTGRESQL])
    parser.add_argument("--side-by-side", action="store_true", help="run the storms of both stores at the same time")
    parser.add_argument("--kills", type=int, default=1000, help="kills of daemons, over all stores (1000)")
    parser.add_argument("--restarts", type=int, default=100, help="restarts of PostgreSQL in immediate mode (100)")
    parser.add_argument("--kills-a-round", type=int, default=14, help="kills before a calm (14)")
    parser.add_argument("--minutes", type=float, help="begin no round after so many minutes a store; default: no limit")
    parser.add_argument("--calm", type=float, default=90.0, help="the longest wait for a recovery, in seconds (90)")
    names = [kind.name.lower().replace("_", "-") for kind in Kind]
    parser.add_argument("--only", nargs="+", default=[], choices=names, metavar="FAULT", help=f"of {', '.join(names)}")
    parser.add_argument("--without", nargs="+", default=[], choices=names, metavar="FAULT", help="all but these")
    parser.add_argument("--end", type=float, default=300.0, help="the longest wait at the end, in seconds (300)")
    parser.add_argument("--json", type=Path, help="where every fault, sample and verdict goes")
    parser.add_argument("--folder", type=Path, help="where ledgers and logs lie; default: a new folder in /tmp")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
