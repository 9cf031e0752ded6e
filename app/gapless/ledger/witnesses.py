"""Finds webhook events that are absent from a complete listing of their window, and so contradict it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select, true, update

from gapless.ledger.events import CHUNK, UNLISTED_AFTER
from gapless.ledger.tables import ABSENCE, EVENT
from gapless.ledger.tallies import Tallies

NEWER = EVENT.alias("newer")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSpan:
    """The expected events of a stream in `[start_us, end_us)` whose webhook came before `before_us`.

    Each is a witness: a complete listing of that time must show it, unless a person has accepted that it does not. A
    list of states shows only the last state of an object (`last_states`).
    """

    stream_id: int
    start_us: int
    end_us: int
    before_us: int
    last_states: bool = False

    def where(self) -> ColumnElement[bool]:
        """Return the condition on `event`."""
        superseded = exists().where(
            NEWER.c.source_id == EVENT.c.source_id,
            NEWER.c.object_key == EVENT.c.object_key,
            NEWER.c.object_version > EVENT.c.object_version,
        )
        return and_(
            ~superseded if self.last_states else true(),
            EVENT.c.stream_id == self.stream_id,
            EVENT.c.occurred_us >= self.start_us,
            EVENT.c.occurred_us < self.end_us,
            EVENT.c.expected,
            EVENT.c.webhook_us.is_not(None),
            EVENT.c.webhook_us < self.before_us,
            EVENT.c.seq.not_in(select(ABSENCE.c.event_seq).where(ABSENCE.c.state == "accepted")),
        )


def count_witnesses(connection: Connection, span: WitnessSpan) -> int:
    """Return how many events a complete listing must show."""
    return int(connection.execute(select(func.count()).select_from(EVENT).where(span.where())).scalar_one())


def absent(connection: Connection, span: WitnessSpan, shown: Collection[int]) -> dict[int, int]:
    """Return {seq: time of occurrence} of the witnesses that the listing has not `shown`."""
    query = select(EVENT.c.seq, EVENT.c.occurred_us).where(span.where())
    return {seq: occurred_us for seq, occurred_us in connection.execute(query) if seq not in shown}


def note_absent(connection: Connection, slot: int, seqs: Sequence[int]) -> int:
    """Note that a complete listing lacked these events; count and return those that became unlisted by it."""
    tallies = Tallies()
    became = 0
    ordered = sorted(seqs)
    for at in range(0, len(ordered), CHUNK):
        statement = (
            update(EVENT)
            .where(EVENT.c.seq.in_(ordered[at : at + CHUNK]), EVENT.c.absent_count < UNLISTED_AFTER)
            .values(absent_count=EVENT.c.absent_count + 1)
            .returning(EVENT.c.source_id, EVENT.c.occurred_us, EVENT.c.absent_count)
        )
        for source_id, occurred_us, count in connection.execute(statement):
            if count == UNLISTED_AFTER:
                became += 1
                tallies.add(source_id, occurred_us, "unlisted")
    tallies.write(connection, slot)
    return became
