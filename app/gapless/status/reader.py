"""Reads the report from the store: the one way in which metrics, API, page and `gapless status` get it."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from gapless.domain import Sources
from gapless.ledger import snapshot
from gapless.ledger.engine import Store
from gapless.status.evaluation import evaluate
from gapless.status.report import StatusReport
from gapless_reconcilers.kit.contract import ReadBudget


async def read_report(
    store: Store,
    sources: Sources,
    budgets: Mapping[str, ReadBudget | None],
    now: datetime,
    configured: Iterable[str] = (),
) -> StatusReport:
    """Return the report of `sources` at `now`. Raises `StoreError`.

    `budgets`: what each source may read, by name. `configured`: further names that the ledger may not know yet.
    """
    known = tuple(sources)
    figures = await store.read(lambda connection: snapshot.take_snapshot(connection, known, now))
    return evaluate(figures, budgets, now, dict.fromkeys([*(source.name for source in known), *configured]))
