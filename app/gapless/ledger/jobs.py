"""Jobs: what a person asked to be done to many events, done in batches by whichever process is there.

A job is a row with a plan, a cursor and counts. A batch is found in a reading transaction. It is applied in a writing
transaction that begins by moving the cursor from where it was found. So a process that is killed neither loses a batch
nor does one twice, and of two processes that found the same batch only one applies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, RowMapping, func, insert, or_, select, update

from gapless.ledger import dead_letters, events, unsettled
from gapless.ledger.deliveries import PENDING
from gapless.ledger.events import EventFilter
from gapless.ledger.tables import DELIVERY, DESTINATION, JOB
from gapless.ledger.unsettled import Key, UnsettledFilter

FARTHEST_US = 60_000_000
"""No batch is put off for longer: one that is due later was put off by a clock that was ahead."""
LOOKED = 20_000
"""Most events that are looked at for a batch of a replay."""


class JobKind(StrEnum):
    """What a job does: the operation that asked for it."""

    REPLAY = "event.replay"
    REQUEUE = "dead.requeue"
    RELEASE = "held.release"
    DISCARD = "dead.discard"
    DISCARD_HELD = "held.discard"


class JobState(StrEnum):
    """The state of a job."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The events that are sent to one destination: those that are chosen, up to `last_seq`."""

    destination_id: int
    chosen: EventFilter
    last_seq: int


class UnsettledPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The deliveries that are sent again or discarded: those of events up to `last_seq`."""

    chosen: UnsettledFilter
    last_seq: int
    why: str = ""
    """What the attempts of a discarded delivery say."""


Plan: TypeAlias = ReplayPlan | UnsettledPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """One job. Times are microseconds."""

    id: int
    kind: JobKind
    plan: str
    """JSON of its `Plan`."""
    source: str | None
    destination: str | None
    cursor: Key
    """Everything up to this event and destination is done."""
    planned: int
    """How many it concerned when it began."""
    done: int
    left_out: int
    """Events without a payload, and deliveries that changed meanwhile."""
    pace_us: int | None
    """Time for each event; None: as fast as the destinations take them."""
    state: JobState
    next_us: int
    created_us: int
    created_by: str
    role: str
    reason: str | None
    ended_us: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBatch:
    """What a job does next, and the cursor after it. There may be nothing in it although there is more."""

    keys: list[Key]
    cursor: Key
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to begin."""

    kind: JobKind
    plan: Plan
    planned: int
    source: str | None
    destination: str | None
    pace_us: int | None
    created_by: str
    role: str
    reason: str | None
    after_seq: int = 0


_COLUMNS = [JOB.c[name] for name in StoredJob.__slots__ if name != "cursor"]


def begin(connection: Connection, new: NewJob, now_us: int) -> dict[str, int]:
    """Begin a job; return its id and how many it concerns, for whoever asked and for the audit log."""
    plain = (
        "kind",
        "planned",
        "source",
        "destination",
        "pace_us",
        "created_by",
        "role",
        "reason",
    )
    values: dict[str, Any] = {name: getattr(new, name) for name in plain}
    values |= {"plan": msgspec.json.encode(new.plan).decode(), "cursor_seq": new.after_seq, "created_us": now_us}
    made = connection.execute(insert(JOB).values(**values, next_us=now_us))
    return {"job": int((made.inserted_primary_key or (0,))[0]), "count": new.planned}


def find(connection: Connection, job_id: int) -> StoredJob | None:
    """Return the job with that id; None: there is none."""
    row = connection.execute(_select().where(JOB.c.id == job_id)).mappings().first()
    return None if row is None else _stored(row)


def newest(
    connection: Connection, *, only_running: bool, before_id: int | None = None, limit: int = 100
) -> list[StoredJob]:
    """Return the newest jobs, the last one first."""
    query = _select()
    if only_running:
        query = query.where(JOB.c.state == JobState.RUNNING)
    if before_id is not None:
        query = query.where(JOB.c.id < before_id)
    return [_stored(row) for row in connection.execute(query.order_by(JOB.c.id.desc()).limit(limit)).mappings()]


def due(connection: Connection, now_us: int) -> list[StoredJob]:
    """Return the running jobs whose next batch is due, the oldest first."""
    is_due = or_(JOB.c.next_us <= now_us, JOB.c.next_us > now_us + FARTHEST_US)
    found = connection.execute(_select().where(JOB.c.state == JobState.RUNNING, is_due).order_by(JOB.c.id))
    return [_stored(row) for row in found.mappings()]


def next_batch(connection: Connection, job: StoredJob, limit: int) -> JobBatch:
    """Return at most `limit` of what the job does next. Only so many rows are looked at, whatever it chooses."""
    plan = plan_of(job)
    if isinstance(plan, UnsettledPlan):
        found = unsettled.batch(connection, plan.chosen, job.cursor, limit)
        keys = [key for key in found.keys if key[0] <= plan.last_seq]
        return JobBatch(keys=keys, cursor=found.cursor, has_more=found.has_more and found.cursor[0] <= plan.last_seq)
    after, _ = job.cursor
    upto = min(after + LOOKED, plan.last_seq)
    seqs = events.next_seqs(connection, plan.chosen, after, upto, limit)
    reached = seqs[-1] if len(seqs) == limit else upto
    keys = [(seq, plan.destination_id) for seq in seqs]
    return JobBatch(keys=keys, cursor=(reached, 0), has_more=reached < plan.last_seq)


def advance(connection: Connection, job: StoredJob, batch: JobBatch, *, now_us: int, next_us: int) -> StoredJob | None:
    """Apply a batch and move the cursor; return the job after it.

    None, and nothing is changed, if the job does not run any more or another process has applied the batch.
    """
    seq, destination_id = job.cursor
    as_found = (JOB.c.cursor_seq == seq, JOB.c.cursor_destination == destination_id)
    mine = (JOB.c.id == job.id, JOB.c.state == JobState.RUNNING, *as_found)
    moved: dict[str, object] = {
        "cursor_seq": batch.cursor[0],
        "cursor_destination": batch.cursor[1],
        "next_us": next_us,
    }
    if not batch.has_more:
        moved |= {"state": JobState.FINISHED, "ended_us": now_us}
    if connection.execute(update(JOB).where(*mine).values(**moved, last_error=None)).rowcount != 1:
        return None
    done = _apply(connection, job, batch.keys, now_us)
    counted = {"done": JOB.c.done + done, "left_out": JOB.c.left_out + len(batch.keys) - done}
    connection.execute(update(JOB).where(JOB.c.id == job.id).values(**counted))
    return find(connection, job.id)


def _apply(connection: Connection, job: StoredJob, keys: Sequence[Key], now_us: int) -> int:
    plan = plan_of(job)
    if isinstance(plan, ReplayPlan):
        seqs = [seq for seq, _ in keys]
        return dead_letters.replay(connection, plan.destination_id, seqs, now_us) if seqs else 0
    if job.kind in (JobKind.DISCARD, JobKind.DISCARD_HELD):
        return unsettled.discard(connection, keys, plan.chosen.state, now_us, plan.why)
    return unsettled.send_again(connection, keys, plan.chosen.state, now_us)


def put_off(connection: Connection, job: StoredJob, until_us: int, error: str) -> None:
    """Note why the job could not go on, and when it is tried again."""
    mine = (JOB.c.id == job.id, JOB.c.state == JobState.RUNNING)
    connection.execute(update(JOB).where(*mine).values(next_us=until_us, last_error=error))


def fail(connection: Connection, job: StoredJob, now_us: int, error: str) -> None:
    """End a job that can never go on."""
    mine = (JOB.c.id == job.id, JOB.c.state == JobState.RUNNING)
    connection.execute(update(JOB).where(*mine).values(state=JobState.FAILED, ended_us=now_us, last_error=error))


def cancel(connection: Connection, job_id: int, now_us: int) -> bool:
    """End a job; what it has done stays. Return False if it does not run."""
    mine = (JOB.c.id == job_id, JOB.c.state == JobState.RUNNING)
    return connection.execute(update(JOB).where(*mine).values(state=JobState.CANCELLED, ended_us=now_us)).rowcount == 1


def waiting_at(connection: Connection, job: StoredJob, now_us: int, most: int) -> int:
    """Return how many deliveries are due at the destination of the job that has most of them, at most `most`."""
    plan = plan_of(job)
    ids = select(DESTINATION.c.id).where(DESTINATION.c.state == "active")
    if isinstance(plan, ReplayPlan):
        ids = ids.where(DESTINATION.c.id == plan.destination_id)
    elif plan.chosen.destinations is not None:
        ids = ids.where(DESTINATION.c.name.in_(plan.chosen.destinations))
    return max((_due_at(connection, each, now_us, most) for each in connection.execute(ids).scalars().all()), default=0)


def _due_at(connection: Connection, destination_id: int, now_us: int, most: int) -> int:
    mine = (DELIVERY.c.destination_id == destination_id, PENDING, DELIVERY.c.next_us <= now_us)
    first = select(DELIVERY.c.event_seq).where(*mine).limit(most).subquery()
    return connection.execute(select(func.count()).select_from(first)).scalar_one()


def takes_deliveries(connection: Connection, job: StoredJob) -> bool:
    """Return True if the destination of a replay is still configured."""
    plan = plan_of(job)
    if not isinstance(plan, ReplayPlan):
        return True
    state = select(DESTINATION.c.state).where(DESTINATION.c.id == plan.destination_id)
    return connection.execute(state).scalar() == "active"


def plan_of(job: StoredJob) -> Plan:
    """Return what the job does. Raises `msgspec.DecodeError` if another release has written it."""
    plan: type[ReplayPlan | UnsettledPlan] = ReplayPlan if job.kind is JobKind.REPLAY else UnsettledPlan
    return msgspec.json.decode(job.plan, type=plan)


def _select() -> Any:
    return select(*_COLUMNS, JOB.c.cursor_seq, JOB.c.cursor_destination)


def _stored(row: RowMapping) -> StoredJob:
    values = dict(row)
    cursor = (values.pop("cursor_seq"), values.pop("cursor_destination"))
    return StoredJob(**values | {"cursor": cursor, "kind": JobKind(row["kind"]), "state": JobState(row["state"])})
