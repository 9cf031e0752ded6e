"""Expected events that a listing showed before a webhook did, while their grace is not over: read early, judge late.

A finding is recorded, delivered and counted as expected at once. Whether it was missed is judged once, in the
transaction that moves the watermark over it: only if no webhook has brought it by then. A webhook never looks here. It
notes itself in the row of its event, and that row, or the missing row that stands for it, decides which of the two came
first.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, delete, or_, select, update

from gapless.domain import Cause, Via
from gapless.ledger.engine import dialect
from gapless.ledger.events import CHUNK
from gapless.ledger.tables import EVENT, FINDING, MISSING, STREAM
from gapless.ledger.tallies import MISSED, Tallies

COLUMNS = ("source_id", "key", "stream_id", "occurred_us", "cause")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFinding:
    """A listed event that is not judged yet. `cause` is counted if it turns out to be missed."""

    source_id: int
    key: str
    stream_id: int
    occurred_us: int
    cause: Cause
    object_key: str | None = None
    object_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A missed event that is recorded, for the time that its recovery took. Times are microseconds."""

    via: Via
    occurred_us: int
    recorded_us: int

    @property
    def took_s(self) -> float:
        """Return the seconds from its occurrence to its record, at least 0."""
        return max(0, self.recorded_us - self.occurred_us) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The findings that were judged to be missed just now."""

    missed: int
    recovered: tuple[Recovered, ...]
    """Those of them that are recorded; the others are still requested one by one."""


def add(connection: Connection, found: Iterable[OpenFinding]) -> None:
    """Insert the findings that do not exist yet."""
    rows = sorted((each.source_id, each.key, each.stream_id, each.occurred_us, each.cause.value) for each in found)
    for row in rows:
        dialect.insert_or_ignore(connection, FINDING, dict(zip(COLUMNS, row, strict=True)))


def unexplained(connection: Connection, stream_id: int, before_us: int) -> list[OpenFinding]:
    """Return the findings of the stream that occurred before `before_us` and have no cause yet."""
    query = (
        select(FINDING, EVENT.c.object_key, EVENT.c.object_version)
        .outerjoin(EVENT, (EVENT.c.source_id == FINDING.c.source_id) & (EVENT.c.key == FINDING.c.key))
        .where(FINDING.c.stream_id == stream_id, FINDING.c.occurred_us < before_us)
        .where(FINDING.c.cause == Cause.UNEXPLAINED.value)
        .order_by(FINDING.c.source_id, FINDING.c.key)
    )
    return [OpenFinding(**{**row, "cause": Cause(row["cause"])}) for row in connection.execute(query).mappings()]


def judge(
    connection: Connection, slot: int, stream_id: int, before_us: int, refused: Collection[str] = frozenset()
) -> Judged:
    """Judge the findings of the stream that occurred before `before_us`. Return those that are missed.

    A finding is missed if no webhook has brought it, or only one that we had asked for. `refused`: the keys of those
    without a cause that a refused webhook names by now. A webhook whose transaction is under way is waited for; one
    that comes later finds the event counted as missed, and is late.
    """
    judged = (FINDING.c.stream_id == stream_id, FINDING.c.occurred_us < before_us)
    query = select(FINDING).where(*judged).order_by(FINDING.c.source_id, FINDING.c.key)
    found = [_with_cause(row, refused) for row in connection.execute(query).mappings()]
    tallies, missed, recovered = Tallies(), 0, list[Recovered]()
    for at in range(0, len(found), CHUNK):
        marked, recorded = _missed(connection, found[at : at + CHUNK])
        for each in marked:
            tallies.add(each.source_id, each.occurred_us, MISSED[each.cause])
        missed += len(marked)
        recovered += recorded
    if found:
        connection.execute(delete(FINDING).where(*judged))
    tallies.write(connection, slot)
    return Judged(missed=missed, recovered=tuple(recovered))


def judge_behind(connection: Connection, slot: int, stream_id: int) -> Judged:
    """Judge the findings of the stream that occurred before its watermark. Return those that are missed."""
    watermark_us = select(STREAM.c.watermark_us).where(STREAM.c.id == stream_id)
    return judge(connection, slot, stream_id, connection.execute(watermark_us).scalar_one())


def drop(connection: Connection, stream_ids: Collection[int]) -> None:
    """Forget the findings of these streams: nobody can say any more whether their webhooks came."""
    connection.execute(delete(FINDING).where(FINDING.c.stream_id.in_(stream_ids)))


def _with_cause(row: RowMapping, refused: Collection[str]) -> OpenFinding:
    """Return the finding, with the cause that is known by now."""
    cause = Cause(row["cause"])
    is_refused = cause is Cause.UNEXPLAINED and row["key"] in refused
    return OpenFinding(**{**row, "cause": Cause.REFUSED if is_refused else cause})


def _missed(connection: Connection, found: Sequence[OpenFinding]) -> tuple[list[OpenFinding], list[Recovered]]:
    """Mark those of `found`, all of one source, that are missed, in their events or missing rows.

    Return them, and what is known of those that are recorded.
    """
    source_id, recorded = found[0].source_id, _hold_events(connection, found)
    by_cause: defaultdict[Cause, set[str]] = defaultdict(set)
    for each in found:
        by_cause[each.cause].add(each.key)
    events: dict[str, tuple[Via, int]] = {}
    missing: set[str] = set()
    for cause, keys in sorted(by_cause.items()):
        events |= _mark_events(connection, source_id, cause, keys & recorded)
        missing |= _mark_missing(connection, source_id, cause, keys - recorded)
    recovered = [
        Recovered(via=events[each.key][0], occurred_us=each.occurred_us, recorded_us=events[each.key][1])
        for each in found
        if each.key in events
    ]
    return [each for each in found if each.key in events or each.key in missing], recovered


def _hold_events(connection: Connection, found: Sequence[OpenFinding]) -> set[str]:
    """Return the keys of the findings whose events are recorded, and hold these rows, in order, until the commit."""
    keys = [each.key for each in found]
    query = select(EVENT.c.key).where(EVENT.c.source_id == found[0].source_id, EVENT.c.key.in_(keys))
    return set(connection.execute(query.order_by(EVENT.c.key).with_for_update()).scalars())


def _mark_events(
    connection: Connection, source_id: int, cause: Cause, keys: Collection[str]
) -> dict[str, tuple[Via, int]]:
    """Mark the events without a webhook of their own as missed; return how and when they were recorded, by key."""
    no_webhook = or_(EVENT.c.webhook_us.is_(None), EVENT.c.via == Via.REDELIVERY.value)
    mine = (EVENT.c.source_id == source_id, EVENT.c.key.in_(sorted(keys)), no_webhook)
    missed = update(EVENT).where(*mine).values(missed_cause=cause.value)
    rows = connection.execute(missed.returning(EVENT.c.key, EVENT.c.via, EVENT.c.first_seen_us))
    return {key: (Via(via), seen_us) for key, via, seen_us in rows}


def _mark_missing(connection: Connection, source_id: int, cause: Cause, keys: Collection[str]) -> set[str]:
    """Mark the missing rows that no event has closed as counted; return their keys."""
    mine = (MISSING.c.source_id == source_id, MISSING.c.key.in_(sorted(keys)), MISSING.c.state.in_(("open", "lost")))
    counted = update(MISSING).where(*mine).values(counted=True, cause=cause.value)
    return set(connection.execute(counted.returning(MISSING.c.key)).scalars())
