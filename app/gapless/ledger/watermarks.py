"""Moves watermarks, up to which a stream agrees with the provider's list, and records unrecoverable intervals.

Whoever moves a watermark judges the findings that it passes, in the same transaction: none is left behind it.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, select, update

from gapless.ledger import absences, findings
from gapless.ledger.engine import dialect
from gapless.ledger.findings import Judged
from gapless.ledger.passes import Pass, PassKind, Slice, slices
from gapless.ledger.streams import stream
from gapless.ledger.tables import SOURCE, STREAM, UNRECOVERABLE

EVENT_LOST = "event_lost"
"""The reason of an unrecoverable interval in which the provider listed an event that it then no longer had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The contiguous finished beginning of a pass: its end, and whether its listing is suspect."""

    end_us: int
    """No later than the first row that was too young to be recorded."""
    suspect: bool
    whole: bool = False
    """True if every slice of the pass is done."""


def finished_prefix(start_us: int, parts: list[Slice]) -> Prefix:
    """Return the slices that are done without a hole.

    The prefix is suspect if it contains witnesses and the listing showed none of them.
    """
    end_us, witnesses, matched, left = start_us, 0, 0, list[int]()
    for part in parts:
        if not part.done or part.start_us > end_us:
            break
        end_us = max(end_us, part.end_us)
        witnesses += part.witnesses
        matched += part.matched
        left += [] if part.left_us is None else [part.left_us]
    suspect = witnesses > 0 and matched == 0
    return Prefix(
        end_us=min(end_us, *left) if left else end_us, suspect=suspect, whole=all(part.done for part in parts)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a watermark does not pass."""

    latest_us: int
    """The time from which on the list may still grow."""
    lookback_us: int = 0
    """How long events may take to be listed. A pass checks the claim if it read so far behind what was read by then."""
    absences_allowed: int = 0
    """Open absences of the stream above which the watermark stays before the first of them."""
    margin_us: int = 0
    """How far before an absent event that is, because webhook and list may differ about its time."""
    unit_us: int = 1
    """The watermark is a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How far a pass has come, and the findings that were judged missed."""

    prefix: Prefix
    judged: Judged


def advance(
    connection: Connection, pass_: Pass, limits: Limits, slot: int, refused: Collection[str] = frozenset()
) -> Advance:
    """Move the stream's watermark as far as `pass_` lets it, and judge the findings whose grace is over by then.

    `refused`: the keys of findings that a refused webhook names. The caller has fenced this transaction and has made
    every listed event durable.
    """
    prefix = finished_prefix(pass_.start_us, slices(connection, pass_.id))
    _move(connection, pass_, limits, prefix)
    before_us = max(limits.latest_us, stream(connection, pass_.stream_id).watermark_us)
    return Advance(prefix=prefix, judged=findings.judge(connection, slot, pass_.stream_id, before_us, refused))


def _move(connection: Connection, pass_: Pass, limits: Limits, prefix: Prefix) -> None:
    """Move the stream's watermark over the finished prefix of `pass_`, never past `limits`, never back.

    Nothing moves if the prefix is suspect, or if the pass begins after the time up to which the list was read: that
    would leave a hole. A recheck proves nothing of its own: it only lets the watermark go on to where the list was read
    already.
    """
    rechecks = pass_.kind is PassKind.RECHECK
    to_us = min(prefix.end_us, limits.latest_us)
    if not rechecks and (prefix.suspect or to_us <= pass_.start_us):
        return
    row = stream(connection, pass_.stream_id)
    if not rechecks and row.read_to_us < pass_.start_us:
        return
    read_us = row.read_to_us if rechecks else max(row.read_to_us, to_us)
    held_us = _held_us(connection, pass_.stream_id, limits)
    watermark_us = max(row.watermark_us, read_us if held_us is None else min(read_us, held_us))
    values: dict[str, int | None] = {
        "watermark_us": watermark_us,
        "read_us": None if read_us <= watermark_us else read_us,
    }
    reaches_back = pass_.start_us <= max(read_us - limits.lookback_us, row.complete_from_us)
    if not rechecks and reaches_back and watermark_us <= prefix.end_us:
        values["checked_us"] = pass_.started_us
    where = (STREAM.c.id == pass_.stream_id, STREAM.c.watermark_us == row.watermark_us)
    connection.execute(update(STREAM).where(*where).values(**values))


def _held_us(connection: Connection, stream_id: int, limits: Limits) -> int | None:
    """Return the time that absent events do not let the watermark pass; None: there is none."""
    first_us = absences.first_held_us(connection, stream_id, limits.absences_allowed)
    return None if first_us is None else (first_us - limits.margin_us) // limits.unit_us * limits.unit_us


def complete_pass(connection: Connection, stream_id: int, outcome: str, now_us: int, listed: int) -> None:
    """Note that a whole window of the stream was read, that it is not suspect, and how many events it listed."""
    values = {
        "last_complete_pass_us": now_us,
        "last_outcome": outcome,
        "last_error": None,
        "parked_reason": None,
        "last_listed": listed,
    }
    connection.execute(update(STREAM).where(STREAM.c.id == stream_id).values(**values))


def save_cursor(connection: Connection, stream_id: int, cursor: str | None) -> None:
    """Store the cursor of a stream that reading consumes; all before is durable, and the next request confirms it."""
    connection.execute(update(STREAM).where(STREAM.c.id == stream_id).values(cursor=cursor))


def note_consumed(connection: Connection, stream_id: int, up_to_us: int, now_us: int) -> None:
    """Move the watermark to `up_to_us`, a time at which the provider had no more events to hand out."""
    where = (STREAM.c.id == stream_id, STREAM.c.watermark_us <= up_to_us)
    connection.execute(update(STREAM).where(*where).values(watermark_us=up_to_us, checked_us=now_us))


def note_outcome(
    connection: Connection, stream_id: int, outcome: str, parked_reason: str | None, error: str | None = None
) -> None:
    """Store the outcome of a pass that could not be completed, and the error if there was one."""
    values = {"last_outcome": outcome, "last_error": error, "parked_reason": parked_reason}
    connection.execute(update(STREAM).where(STREAM.c.id == stream_id).values(**values))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecoverableInterval:
    """An interval for which the provider can no longer prove anything."""

    start_us: int
    end_us: int
    reason: str


def write_off(connection: Connection, stream_id: int, loss: UnrecoverableInterval, now_us: int, slot: int) -> bool:
    """Record the loss as unrecoverable and move the watermark to its end. Returns True if it is new."""
    where = (STREAM.c.id == stream_id, STREAM.c.watermark_us < loss.end_us)
    if connection.execute(update(STREAM).where(*where).values(watermark_us=loss.end_us, read_us=None)).rowcount != 1:
        return False
    findings.judge(connection, slot, stream_id, loss.end_us)
    return note_unrecoverable(connection, stream_id, loss, now_us)


def note_unrecoverable(connection: Connection, stream_id: int, loss: UnrecoverableInterval, now_us: int) -> bool:
    """Record the loss as unrecoverable; the watermark passes over it later. Returns True if it is new."""
    return dialect.insert_or_ignore(
        connection, UNRECOVERABLE, {**asdict(loss), "stream_id": stream_id, "recorded_us": now_us}
    )


def note_lost_event(connection: Connection, stream_id: int, loss: UnrecoverableInterval, now_us: int) -> None:
    """Record the time of a lost event as unrecoverable. If it was acknowledged before, a person is asked again."""
    if note_unrecoverable(connection, stream_id, loss, now_us):
        return
    is_it = [UNRECOVERABLE.c[name] == value for name, value in (("stream_id", stream_id), *asdict(loss).items())]
    anew = {"acknowledged_us": None, "acknowledged_by": None, "acknowledged_reason": None, "recorded_us": now_us}
    connection.execute(update(UNRECOVERABLE).where(*is_it).values(**anew))


def acknowledge(
    connection: Connection,
    source_id: int,
    *,
    by: str,
    reason: str,
    now_us: int,
    until_us: int | None = None,
    ids: Sequence[int] | None = None,
) -> list[int]:
    """Note that a person looked into unrecoverable intervals: all that ended by `until_us`, or those of `ids`.

    Returns the ids of those that were not acknowledged before. They stay unrecoverable.
    """
    mine = select(STREAM.c.id).where(STREAM.c.source_id == source_id)
    where: list[ColumnElement[bool]] = [UNRECOVERABLE.c.stream_id.in_(mine), UNRECOVERABLE.c.acknowledged_us.is_(None)]
    if until_us is not None:
        where.append(UNRECOVERABLE.c.end_us <= until_us)
    if ids is not None:
        where.append(UNRECOVERABLE.c.id.in_(ids))
    done = {"acknowledged_us": now_us, "acknowledged_by": by, "acknowledged_reason": reason}
    changed = update(UNRECOVERABLE).where(*where).values(**done).returning(UNRECOVERABLE.c.id)
    return sorted(connection.execute(changed).scalars())


def unrecoverable_ids(connection: Connection, source_id: int) -> list[int]:
    """Return the ids of the source's unrecoverable intervals, acknowledged or not."""
    query = select(UNRECOVERABLE.c.id).join(STREAM, STREAM.c.id == UNRECOVERABLE.c.stream_id)
    return sorted(connection.execute(query.where(STREAM.c.source_id == source_id)).scalars())


def widen_lookback(connection: Connection, source_id: int, lookback_us: int) -> None:
    """Store a longer lookback, because events of this source become visible that late."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(lookback_us=lookback_us))


def note_sweep(connection: Connection, source_id: int, now_us: int) -> None:
    """Note that the source was swept."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(last_sweep_us=now_us))
