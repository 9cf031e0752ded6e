"""Each list of the console reads an index, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event

from gapless.domain import Via
from gapless.ledger import (
    audit_log,
    event_history,
    event_search,
    missing,
    pass_search,
    quarantine,
    tallies,
    unrecoverable,
    unsettled,
)
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.event_search import EventSearch
from gapless.ledger.unsettled import UnsettledFilter

pytestmark = pytest.mark.anyio
ACME = frozenset({"acme"})
SEARCHES = [
    EventSearch(),
    EventSearch(id="evt_1"),
    EventSearch(prefix="evt_"),
    EventSearch(object_key="in_1"),
    EventSearch(sources=ACME, types=("invoice.*", "x"), start_us=1, end_us=5),
    EventSearch(via="both", livemode=True),
    EventSearch(state="dead"),
    EventSearch(state="none"),
    EventSearch(sources=ACME, missed=True, cause="refused"),
]
LISTS: list[Callable[[Connection], Any]] = [
    lambda c: pass_search.page(c, sources=ACME, outcome="found", after=(9,), limit=5),
    lambda c: pass_search.open_passes(c, ACME, 5),
    lambda c: missing.page(c, sources=ACME, states=["open"], after=(9,), limit=5),
    lambda c: missing.open_by_hour(c, 1, 0, 5),
    lambda c: unrecoverable.page(c, acknowledged=False, after=(9,), limit=5),
    lambda c: quarantine.page(c, source_ids=[1], reason="stale", after=(9,), limit=5),
    lambda c: audit_log.page(c, actor="ann", after=(9,), limit=5),
    lambda c: unsettled.page(c, UnsettledFilter(state=DeliveryState.DEAD, types=("x.*",)), limit=5),
    lambda c: tallies.hours(c, 1, 0, 5),
]
SMALL = ("source", "stream", "destination")
"""Tables of a few rows, which may be read whole."""


def scans(connection: Connection, run: Callable[[Connection], Any]) -> list[str]:
    """Return the steps of the plans of what `run` executes that read a table whole."""
    executed: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: bool) -> None:
        executed.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    run(connection)
    event.remove(connection, "before_cursor_execute", note)
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        connection.exec_driver_sql("SET enable_seqscan = off")  # a table of three rows is read whole otherwise
    found = []
    for text, values in executed:
        if not text.lstrip().upper().startswith(("SELECT", "WITH")):
            continue
        plan = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{text}", values).all()
        found += [str(row[-1]).strip() for row in plan]
    if not sqlite:
        connection.exec_driver_sql("RESET enable_seqscan")
    bad = "SCAN " if sqlite else "Seq Scan on "
    return [
        step
        for step in found
        if bad in step
        and "USING" not in step
        and not any(f"{bad}{table}" in step for table in SMALL)
        and not step.startswith(("SCAN anon_", "SCAN some", "SCAN (subquery", "SCAN CONSTANT"))
    ]


@pytest.mark.parametrize("wanted", SEARCHES, ids=lambda wanted: repr(wanted)[12:40])
async def test_a_search_of_events_reads_an_index(console: Any, wanted: EventSearch) -> None:
    await console.add_source("other")
    await console.record(Via.WEBHOOK, "evt_1", "evt_2")

    def run(connection: Connection) -> None:
        event_search.search(connection, wanted, after=(2**60, 9), limit=5)

    assert await console.context.read(scans, run) == []


async def test_lists_read_an_index_or_the_newest_rows(console: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1", "evt_2")
    for number, run in enumerate(LISTS):
        found = await console.context.read(scans, run)
        assert found == [], number


async def test_the_history_of_an_event_is_looked_up(console: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1", "evt_2")

    def run(connection: Connection) -> None:
        found = event_search.event_named(connection, "acme", "evt_1")
        assert found is not None
        event_history.read(connection, found)
        event_search.deliveries_of(connection, [1, 2])

    assert await console.context.read(scans, run) == []
