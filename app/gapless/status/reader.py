"""Read the report from the store: metrics, the API, the page and `gapless status` all get it here."""

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

    `budgets`: the read budget of each source, by name. `configured`: further names that the ledger may not know yet.
    """
    known = tuple(sources)
    ledger_snapshot = await store.read(lambda connection: snapshot.take_snapshot(connection, known, now))
    return evaluate(ledger_snapshot, budgets, now, dict.fromkeys([*(source.name for source in known), *configured]))
