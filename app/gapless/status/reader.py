"""Read the report from the store: metrics, the API, the page and `gapless status` all get it here."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from gapless.domain import Sources
from gapless.ledger import sealed, snapshot
from gapless.ledger.engine import Conflict, LedgerReplaced, ReadOnly, Store, StoreError
from gapless.ledger.engine.sqlite import LOG_LIMIT_BYTES
from gapless.sealing import KeyState
from gapless.status.evaluation import evaluate
from gapless.status.report import StatusReport, StoreFault, StoreReport

LOG_TOO_LARGE = 2 * LOG_LIMIT_BYTES
"""Size of the write-ahead log that is never reached while it can start over."""


async def read_report(
    store: Store,
    sources: Sources,
    now: datetime,
    configured: Iterable[str] = (),
    faults: Iterable[StoreReport] = (),
) -> StatusReport:
    """Return the report of `sources` at `now`. Raises `StoreError`.

    `configured`: further names that the ledger may not know yet.
    `faults`: what is wrong with the store for the process that writes to it.
    """
    known, faults = tuple(sources), tuple(faults)
    ledger_snapshot = await store.read(lambda connection: snapshot.take_snapshot(connection, known, now))
    names = dict.fromkeys([*(source.name for source in known), *configured])
    keys = key_faults(await store.read(sealed.look_with_own))
    seen = {each.fault for each in faults}
    own = (each for each in (*keys, *log_faults(store.log_bytes())) if each.fault not in seen)
    return replace(evaluate(ledger_snapshot, now, names), store=(*faults, *own))


def fault_of(error: StoreError, since: datetime | None = None) -> StoreReport:
    """Return the fault that an error of writing means."""
    kinds: tuple[tuple[type[StoreError], StoreFault], ...]
    kinds = ((ReadOnly, StoreFault.READ_ONLY), (LedgerReplaced, StoreFault.REPLACED), (Conflict, StoreFault.LOCKED))
    fault = next((fault for kind, fault in kinds if isinstance(error, kind)), StoreFault.UNAVAILABLE)
    return StoreReport(fault=fault, detail=str(error), since=since)


def key_faults(state: KeyState) -> tuple[StoreReport, ...]:
    """Return what is wrong with the keys that seal payloads."""
    if state.blocked:
        return (StoreReport(fault=StoreFault.CANNOT_SEAL, detail=state.blocked),)
    if state.unusable:
        return (StoreReport(fault=StoreFault.KEY_MISSING, detail=", ".join(state.unusable)),)
    return ()


def log_faults(log_bytes: int | None) -> tuple[StoreReport, ...]:
    """Return the fault of a write-ahead log of that size, if it has one."""
    if log_bytes is None or log_bytes <= LOG_TOO_LARGE:
        return ()
    return (StoreReport(fault=StoreFault.LOG_GROWS, detail=f"{log_bytes / 1e6:.0f} MB"),)
