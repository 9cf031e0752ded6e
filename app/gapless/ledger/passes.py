"""Rows of passes and their slices: the progress of reconciliation, so that it survives the process."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, or_, select, update

from gapless.domain import cut, to_us
from gapless.ledger.streams import Stream
from gapless.ledger.tables import PASS, SHOWN, SLICE, SOURCE, STREAM
from gapless_reconcilers.kit.contract import Window


class PassKind(StrEnum):
    """The reason for a pass."""

    SCHEDULED = "scheduled"
    SWEEP = "sweep"
    """Reads behind the lookback for events that became visible late."""
    HORIZON = "horizon"
    """Reads once more what is about to leave the provider's history."""
    DEMAND = "demand"
    RECHECK = "recheck"
    """Looks once more for webhook events that a listing lacked: the time of each by itself."""


OPEN_STATES = ("running", "failed")
"""States of passes that go on or wait for a person."""
LOOKS_BEHIND = frozenset({PassKind.SWEEP, PassKind.HORIZON})
"""Kinds that read again what is proven already; they run after the passes that move the watermark."""
GIVES_WAY = LOOKS_BEHIND | {PassKind.DEMAND}
"""Kinds that stop where they are when a scheduled pass is due, and go on after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A pass that is under way. Times are microseconds, `[start, end)`."""

    id: int
    source_id: int
    stream_id: int
    kind: PassKind
    start_us: int
    end_us: int
    started_us: int
    attempts: int = 0
    next_attempt_us: int = 0
    found: int = 0
    """What it had found when it was begun or taken up again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of a pass. `cursor` is the next request as text; None: nothing has been read yet."""

    id: int
    start_us: int
    end_us: int
    done: bool
    cursor: str | None
    witnesses: int
    matched: int
    left_us: int | None = None
    """The time from which on rows were too young to be recorded, as far as it was read; None: there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassProgress:
    """The progress of a pass, why it failed the last time, and the reason if its stream is parked."""

    id: int
    source: str
    stream: str
    kind: str
    start_us: int
    end_us: int
    state: str
    outcome: str | None
    listed: int
    found: int
    missed: int
    slices: int
    slices_done: int
    attempts: int
    next_attempt_us: int
    last_error: str | None
    stream_outcome: str | None
    stream_error: str | None
    parked_reason: str | None
    tried: bool
    """True if a run of the source that began after the pass was created has ended."""
    waiting_until_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingPass:
    """A pass on demand that failed: it is tried again, or it was given up. Times are microseconds."""

    id: int
    stream: str
    start_us: int
    end_us: int
    started_us: int
    error: str
    is_given_up: bool


def begin(connection: Connection, planned: Pass, slices: Sequence[tuple[int, int]]) -> Pass:
    """Insert a pass (its `id` is ignored) and its slices `(start, end)`; return it with its id."""
    values = {
        "source_id": planned.source_id, "stream_id": planned.stream_id, "kind": planned.kind.value,
        "start_us": planned.start_us, "end_us": planned.end_us, "started_us": planned.started_us,
    }  # fmt: skip
    pass_id = connection.execute(insert(PASS).values(**values).returning(PASS.c.id)).scalar_one()
    rows = [{"pass_id": pass_id, "start_us": start, "end_us": end} for start, end in slices]
    connection.execute(insert(SLICE), rows)
    return _pass({**values, "id": pass_id})


def begin_window(
    connection: Connection,
    stream: Stream,
    kind: PassKind,
    window: Window,
    now_us: int,
    unit: timedelta | None,
    pieces: int | None = None,
) -> Pass:
    """Insert a pass over `window` in slices that start at multiples of `unit`; None: one slice.

    `pieces`: the number of slices; None: by the width of the window.
    """
    return begin_windows(connection, stream, kind, [window] if unit is None else cut(window, unit, pieces), now_us)


def begin_windows(
    connection: Connection, stream: Stream, kind: PassKind, windows: Sequence[Window], now_us: int
) -> Pass:
    """Insert a pass with a slice for each of `windows`, which are in order of time and do not overlap."""
    planned = Pass(
        id=0,
        source_id=stream.source_id,
        stream_id=stream.id,
        kind=kind,
        start_us=to_us(windows[0].start),
        end_us=to_us(windows[-1].end),
        started_us=now_us,
    )
    return begin(connection, planned, [(to_us(each.start), to_us(each.end)) for each in windows])


def unfinished(connection: Connection, source_id: int) -> list[Pass]:
    """Return the running passes of the source, oldest first."""
    query = select(PASS).where(PASS.c.source_id == source_id, PASS.c.state == "running").order_by(PASS.c.id)
    return [_pass(row) for row in connection.execute(query).mappings()]


def last_finished(connection: Connection, stream_id: int, kind: PassKind) -> RowMapping | None:
    """Return the newest pass of that kind that read its whole window; None: there is none, or it was pruned."""
    finished = (PASS.c.state == "finished", PASS.c.outcome != "superseded")
    query = select(PASS).where(PASS.c.stream_id == stream_id, PASS.c.kind == kind.value, *finished)
    return connection.execute(query.order_by(PASS.c.id.desc()).limit(1)).mappings().first()


def slices(connection: Connection, pass_id: int) -> list[Slice]:
    """Return the slices of a pass in order of time."""
    rows = connection.execute(select(SLICE).where(SLICE.c.pass_id == pass_id).order_by(SLICE.c.start_us))
    return [
        Slice(
            id=row.id,
            start_us=row.start_us,
            end_us=row.end_us,
            done=row.state == "done",
            cursor=row.cursor,
            witnesses=row.witnesses,
            matched=row.matched,
            left_us=row.left_us,
        )
        for row in rows
    ]


def save_cursor(
    connection: Connection, slice_id: int, cursor: str | None, shown: bytes = b"", left_us: int | None = None
) -> None:
    """Store the cursor of a slice; everything before it is durable, except what is left. None: the slice begins anew.

    `shown`: the witnesses that were shown since the cursor was last stored, as `shown` returns them. `left_us`: the
    first row before the cursor that was too young.
    """
    values = {"cursor": cursor, "left_us": None if cursor is None else left_us}
    connection.execute(update(SLICE).where(SLICE.c.id == slice_id).values(**values))
    if cursor is None:
        connection.execute(delete(SHOWN).where(SHOWN.c.slice_id == slice_id))
    elif shown:
        connection.execute(insert(SHOWN).values(slice_id=slice_id, seqs=shown))


def shown(connection: Connection, slice_id: int) -> bytes:
    """Return the seqs of the witnesses that the slice has shown before its cursor, 8 bytes each."""
    query = select(SHOWN.c.seqs).where(SHOWN.c.slice_id == slice_id).order_by(SHOWN.c.id)
    return b"".join(connection.execute(query).scalars())


def finish_slice(
    connection: Connection, slice_id: int, witnesses: int, matched: int, left_us: int | None = None
) -> None:
    """Note that a slice was read to its end, its number of witnesses, and how many of them the listing showed.

    `left_us`: its first row that was too young to be recorded.
    """
    values = {"state": "done", "cursor": None, "witnesses": witnesses, "matched": matched, "left_us": left_us}
    connection.execute(update(SLICE).where(SLICE.c.id == slice_id).values(**values))
    connection.execute(delete(SHOWN).where(SHOWN.c.slice_id == slice_id))


def count(connection: Connection, pass_id: int, **sums: int) -> None:
    """Add to a pass's counts: listed, found, missed, requests."""
    values = {name: PASS.c[name] + amount for name, amount in sums.items() if amount}
    if values:
        connection.execute(update(PASS).where(PASS.c.id == pass_id).values(**values))


def finish(connection: Connection, pass_id: int, outcome: str, now_us: int, *, failed: bool = False) -> None:
    """Close a pass with its outcome. `failed`: on demand, and a person is to know that it was not made."""
    values = {"state": "failed" if failed else "finished", "outcome": outcome, "finished_us": now_us}
    connection.execute(update(PASS).where(PASS.c.id == pass_id, PASS.c.state == "running").values(**values))


def postpone(connection: Connection, pass_id: int, attempts: int, error: str, next_attempt_us: int) -> None:
    """Note that the pass failed, for how many times in a row without progress, and when it goes on."""
    values = {"attempts": attempts, "next_attempt_us": next_attempt_us, "last_error": error}
    connection.execute(update(PASS).where(PASS.c.id == pass_id, PASS.c.state == "running").values(**values))


def fail(connection: Connection, pass_id: int, attempts: int, error: str, outcome: str, now_us: int) -> None:
    """Close a pass that failed for the last time."""
    postpone(connection, pass_id, attempts, error, now_us)
    finish(connection, pass_id, outcome, now_us, failed=True)


def cancel(connection: Connection, pass_id: int, now_us: int) -> None:
    """End a pass on demand that is under way, and forget one that failed."""
    values = {"state": "finished", "outcome": "cancelled", "finished_us": now_us}
    is_open = PASS.c.state.in_(OPEN_STATES)
    connection.execute(update(PASS).where(PASS.c.id == pass_id, is_open).values(**values))


def settle_failed(connection: Connection, made: Pass) -> None:
    """Forget the passes on demand that failed and whose window `made` has read."""
    is_failed = (PASS.c.source_id == made.source_id, PASS.c.state == "failed", PASS.c.stream_id == made.stream_id)
    is_within = (PASS.c.start_us >= made.start_us, PASS.c.end_us <= made.end_us)
    connection.execute(update(PASS).where(*is_failed, *is_within).values(state="finished"))


def failing(connection: Connection, source_id: int) -> tuple[FailingPass, ...]:
    """Return the passes on demand that failed and are not cancelled, oldest first."""
    is_failing = or_(PASS.c.state == "failed", and_(PASS.c.state == "running", PASS.c.attempts > 0))
    query = select(PASS, STREAM.c.name.label("stream")).join(STREAM, STREAM.c.id == PASS.c.stream_id)
    query = query.where(PASS.c.source_id == source_id, is_failing).order_by(PASS.c.id)
    return tuple(
        FailingPass(
            id=row["id"],
            stream=row["stream"],
            start_us=row["start_us"],
            end_us=row["end_us"],
            started_us=row["started_us"],
            error=row["last_error"] or row["outcome"],
            is_given_up=row["state"] == "failed",
        )
        for row in connection.execute(query).mappings()
    )


def is_running(connection: Connection, pass_id: int) -> bool:
    """Return True if the pass is to go on: it was neither finished nor cancelled."""
    query = select(PASS.c.id).where(PASS.c.id == pass_id, PASS.c.state == "running")
    return connection.execute(query).first() is not None


def recent(connection: Connection, source: str | None, *, only_open: bool, limit: int) -> list[int]:
    """Return the ids of the newest passes of one source or of all; `only_open`: under way, or failed on demand."""
    query = select(PASS.c.id).join(SOURCE, SOURCE.c.id == PASS.c.source_id)
    if source is not None:
        query = query.where(SOURCE.c.name == source)
    if only_open:
        query = query.where(PASS.c.state.in_(OPEN_STATES))
    return list(connection.execute(query.order_by(PASS.c.id.desc()).limit(limit)).scalars())


def request_count(connection: Connection, source_id: int, limit: int = 10) -> float:
    """Return the average number of requests of recent scheduled passes; 1.0 before the first."""
    recent = select(PASS.c.requests).where(PASS.c.source_id == source_id, PASS.c.kind == PassKind.SCHEDULED.value)
    newest = recent.order_by(PASS.c.id.desc()).limit(limit).subquery()
    return float(connection.execute(select(func.avg(newest.c.requests))).scalar() or 1.0)


def progress(connection: Connection, pass_ids: Sequence[int]) -> list[PassProgress]:
    """Return the progress of these passes, in order of id. Unknown ids are left out."""
    done = func.count().filter(SLICE.c.state == "done")
    slices = select(SLICE.c.pass_id, func.count().label("all"), done.label("done"))
    parts = slices.where(SLICE.c.pass_id.in_(pass_ids)).group_by(SLICE.c.pass_id).subquery()
    query = (
        select(
            PASS.c.id, SOURCE.c.name.label("source"), STREAM.c.name.label("stream"), PASS.c.kind, PASS.c.start_us,
            PASS.c.end_us, PASS.c.state, PASS.c.outcome, PASS.c.listed, PASS.c.found, PASS.c.missed,
            PASS.c.attempts, PASS.c.next_attempt_us, PASS.c.last_error,
            func.coalesce(parts.c.all, 0).label("slices"), func.coalesce(parts.c.done, 0).label("slices_done"),
            STREAM.c.last_outcome.label("stream_outcome"), STREAM.c.last_error.label("stream_error"),
            STREAM.c.parked_reason, (SOURCE.c.next_pass_us > PASS.c.started_us).label("tried"),
            SOURCE.c.waiting_until_us,
        )
        .join_from(PASS, STREAM, STREAM.c.id == PASS.c.stream_id)
        .join(SOURCE, SOURCE.c.id == PASS.c.source_id)
        .outerjoin(parts, parts.c.pass_id == PASS.c.id)
        .where(PASS.c.id.in_(pass_ids))
        .order_by(PASS.c.id)
    )  # fmt: skip
    return [PassProgress(**row) for row in connection.execute(query).mappings()]


def _pass(row: RowMapping | dict[str, Any]) -> Pass:
    fields = {name: row[name] for name in Pass.__dataclass_fields__ if name in row}
    return Pass(**{**fields, "kind": PassKind(fields["kind"])})
