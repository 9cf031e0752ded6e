"""Acknowledging what is lost for good, so that it is no trouble any more. It stays in every report."""

from functools import partial

from gapless.console.desk import Desk, OperationRefused
from gapless.console.requests import Acknowledge
from gapless.domain import to_us
from gapless.ledger import Connection, missing, sources, watermarks


async def acknowledge(desk: Desk, asked: Acknowledge) -> dict[str, object]:
    """Note who looked into it, when and why; lost events are acknowledged too, unless intervals are named.

    What was acknowledged before keeps its reason.
    """
    if asked.until is not None and asked.intervals is not None:
        raise OperationRefused("source.acknowledge takes until or intervals; it got both")
    return await desk.write(asked.operation, asked.source, partial(_acknowledge, desk=desk, asked=asked))


def _acknowledge(connection: Connection, desk: Desk, asked: Acknowledge) -> dict[str, object]:
    row = sources.source_named(connection, asked.source)
    if row is None:
        raise OperationRefused(
            f"source {asked.source!r} is not in the ledger; `gapless source list` shows those that are"
        )
    _check_intervals(connection, row["id"], asked)
    now_us, until_us = desk.now_us, None if asked.until is None else to_us(asked.until)
    ids = watermarks.acknowledge(
        connection,
        row["id"],
        by=desk.actor,
        reason=asked.reason,
        now_us=now_us,
        until_us=until_us,
        ids=asked.intervals,
    )
    lost = 0 if asked.intervals else missing.acknowledge_lost(connection, row["id"], now_us, until_us)
    return {"intervals": ids, "lost": lost, "reason": asked.reason}


def _check_intervals(connection: Connection, source_id: int, asked: Acknowledge) -> None:
    known = watermarks.unrecoverable_ids(connection, source_id)
    unknown = [each for each in asked.intervals or () if each not in known]
    if unknown:
        raise OperationRefused(
            f"source {asked.source!r} has no unrecoverable interval {', '.join(map(str, unknown))}; "
            f"it has {', '.join(map(str, known)) or 'none'}; nothing was acknowledged"
        )
