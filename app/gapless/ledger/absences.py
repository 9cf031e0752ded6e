"""Webhook events that a listing of their time lacks. Each is open until a list shows it or a person accepts it.

While more are open than a source may lack (`absences_allowed`), the watermark stays before the first of them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, case, func, select, update

from gapless.ledger.engine import dialect
from gapless.ledger.events import CHUNK, UNLISTED_AFTER
from gapless.ledger.tables import ABSENCE, EVENT, STREAM

T = TypeVar("T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """An open absence. Times are microseconds."""

    event_seq: int
    occurred_us: int
    tries: int
    """How often the event was looked for in other cuts of the list."""
    next_us: int


def note(connection: Connection, stream_id: int, pass_id: int, absent: Mapping[int, int], now_us: int) -> None:
    """Note that the listing of a pass lacked the events `absent` {seq: time of occurrence}; a new one is due at once.

    An event that was listed once and is absent now is open again; an accepted one stays accepted.
    """
    for seq, occurred_us in sorted(absent.items()):
        row = {
            "event_seq": seq, "stream_id": stream_id, "occurred_us": occurred_us, "found_us": now_us,
            "pass_id": pass_id, "next_us": now_us,
        }  # fmt: skip
        if not dialect.insert_or_ignore(connection, ABSENCE, row):
            where = (ABSENCE.c.event_seq == seq, ABSENCE.c.state != "accepted")
            connection.execute(update(ABSENCE).where(*where).values(pass_id=pass_id, state="open"))


def note_tries(connection: Connection, seqs: Collection[int], soon_us: int, later_us: int) -> None:
    """Note that the events were looked for in other cuts.

    The next time is `soon_us` after the first time, and `later_us` after any other.
    """
    when = case((ABSENCE.c.tries == 0, soon_us), else_=later_us)
    for chunk in _chunks(seqs):
        where = ABSENCE.c.event_seq.in_(chunk)
        connection.execute(update(ABSENCE).where(where).values(tries=ABSENCE.c.tries + 1, next_us=when))


def hasten(connection: Connection, seqs: Collection[int], next_us: int) -> None:
    """Look for those of the events again at `next_us` that no two complete listings have lacked yet."""
    once = select(EVENT.c.seq).where(EVENT.c.absent_count < UNLISTED_AFTER)
    for chunk in _chunks(seqs):
        where = (ABSENCE.c.event_seq.in_(once.where(EVENT.c.seq.in_(chunk))), ABSENCE.c.next_us > next_us)
        connection.execute(update(ABSENCE).where(*where).values(next_us=next_us))


def close_listed(connection: Connection, seqs: Collection[int]) -> None:
    """Close the open absences of events that a list has shown."""
    for chunk in _chunks(seqs):
        where = (ABSENCE.c.event_seq.in_(chunk), ABSENCE.c.state == "open")
        connection.execute(update(ABSENCE).where(*where).values(state="listed"))


def open_absences(connection: Connection, stream_id: int) -> list[Absence]:
    """Return the open absences of the stream, by time of occurrence."""
    columns = (ABSENCE.c[name] for name in Absence.__dataclass_fields__)
    query = select(*columns).where(*_open(stream_id)).order_by(ABSENCE.c.occurred_us, ABSENCE.c.event_seq)
    return [Absence(**row) for row in connection.execute(query).mappings()]


def accepted(connection: Connection, stream_id: int) -> set[int]:
    """Return the seqs of the stream's accepted events, which are witnesses no longer."""
    where = (ABSENCE.c.stream_id == stream_id, ABSENCE.c.state == "accepted")
    return set(connection.execute(select(ABSENCE.c.event_seq).where(*where)).scalars())


def first_held_us(connection: Connection, stream_id: int, allowed: int) -> int | None:
    """Return when the first open absence of the stream occurred; None: no more are open than are `allowed`."""
    query = select(func.count(), func.min(ABSENCE.c.occurred_us)).where(*_open(stream_id))
    count, first_us = connection.execute(query).one()
    return first_us if count > allowed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsenceCounts:
    """The open absences of one stream."""

    open: int = 0
    first_us: int | None = None
    """The time at which the first of the events occurred."""
    found_us: int | None = None
    """The time at which the first absence was found."""
    tries: int = 0
    """How often the first events were looked for in other cuts: the least of all."""
    keys: tuple[str, ...] = ()
    """The keys of the first events, at most `NAMED`."""


NO_ABSENCES = AbsenceCounts()
NAMED = 3
"""Absent events that are named one by one."""


def counts(connection: Connection, source_ids: Sequence[int]) -> dict[int, AbsenceCounts]:
    """Return the counts by stream id, of streams that have open absences."""
    of_sources = ABSENCE.c.stream_id.in_(select(STREAM.c.id).where(STREAM.c.source_id.in_(source_ids)))
    first, found, tries = (func.min(ABSENCE.c[name]) for name in ("occurred_us", "found_us", "tries"))
    query = select(ABSENCE.c.stream_id, func.count(), first, found, tries).where(of_sources, ABSENCE.c.state == "open")
    return {
        stream_id: AbsenceCounts(
            open=count, first_us=first_us, found_us=found_us, tries=least, keys=_first_keys(connection, stream_id)
        )
        for stream_id, count, first_us, found_us, least in connection.execute(query.group_by(ABSENCE.c.stream_id))
    }


def _first_keys(connection: Connection, stream_id: int) -> tuple[str, ...]:
    query = select(EVENT.c.key).join(ABSENCE, ABSENCE.c.event_seq == EVENT.c.seq).where(*_open(stream_id))
    return tuple(connection.execute(query.order_by(ABSENCE.c.occurred_us, EVENT.c.seq).limit(NAMED)).scalars())


def lacked_by(connection: Connection, stream_id: int, pass_id: int) -> list[int]:
    """Return the seqs of the stream's open absences that the listing of that pass lacked."""
    where = (*_open(stream_id), ABSENCE.c.pass_id == pass_id)
    return sorted(connection.execute(select(ABSENCE.c.event_seq).where(*where)).scalars())


def accept(connection: Connection, source_id: int, keys: Sequence[str]) -> list[str]:
    """Accept that the list lacks these events of the source; return the keys of those whose absence was open."""
    done: list[str] = []
    for chunk in _chunks(keys):
        query = select(ABSENCE.c.event_seq, EVENT.c.key).join(EVENT, EVENT.c.seq == ABSENCE.c.event_seq)
        query = query.where(EVENT.c.source_id == source_id, EVENT.c.key.in_(chunk), ABSENCE.c.state == "open")
        found = {row.event_seq: row.key for row in connection.execute(query)}
        is_found = ABSENCE.c.event_seq.in_(found)
        connection.execute(update(ABSENCE).where(is_found).values(state="accepted"))
        done += found.values()
    return sorted(done)


def _open(stream_id: int) -> tuple[ColumnElement[bool], ...]:
    return ABSENCE.c.stream_id == stream_id, ABSENCE.c.state == "open"


def _chunks(values: Collection[T]) -> Iterator[list[T]]:
    ordered = sorted(values)
    for at in range(0, len(ordered), CHUNK):
        yield ordered[at : at + CHUNK]
