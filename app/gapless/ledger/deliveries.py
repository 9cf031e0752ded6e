"""Claims pending deliveries with a lease, loads their events, and settles them.

A claim moves a delivery's due time to the end of its lease. So a delivery whose process died is due
again by itself, and the index of due deliveries contains none that is under way.

The lease is also the fence: a settlement counts only while the delivery still carries the lease and
the attempt count of its claim. A process that was paused beyond its lease changes no state, not even
with a success: the newer claim decides. The price is one more delivery with the same id; its attempt
row is written all the same, because the attempt happened.

Attempts are counted when they are settled, not when they are claimed: a process that is killed over
and over must not turn its claims into dead letters.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    update,
)

from gapless.destinations.contract import Answer
from gapless.domain import Via
from gapless.ledger import attempts, ordering, sealed
from gapless.ledger.engine import dialect
from gapless.ledger.events import CHUNK
from gapless.ledger.keyring import ring_of
from gapless.ledger.receipts import EVERY_HANDLER, has_receipt
from gapless.ledger.sources import IDENTITY_SEED
from gapless.ledger.tables import ATTEMPT, DELIVERY, DESTINATION, EVENT, PAYLOAD, SOURCE, STREAM
from gapless.sealing import CannotOpen, Keyring

PENDING: ColumnElement[bool] = literal_column("delivery.state = 'pending'")
"""A literal without a type: a partial index serves only the text of its own condition, not a bound value or `… = 1`."""
OWING: ColumnElement[bool] = literal_column("delivery.state <> 'delivered'")
"""A literal without a type, as `PENDING`."""
QUEUED: ColumnElement[bool] = literal_column("delivery.state = 'waiting'")
"""Those that wait for their turn, or for proof; a literal, as `PENDING`."""
UNSETTLED: ColumnElement[bool] = literal_column(
    "delivery.state <> 'delivered' AND delivery.state <> 'pending' AND delivery.state <> 'waiting'"
)
"""Those that wait for a person, or for their source; a literal, as `PENDING`."""
BEGAN = DELIVERY.c.next_us - func.coalesce(DELIVERY.c.wait_us, DELIVERY.c.next_us - DELIVERY.c.created_us)
"""The time at which the wait of a pending delivery began."""
CLAIM_BYTES = 4 * 2**20
"""Most bytes of payloads that are claimed and loaded at once."""
_PENDING_BY_KEY = DELIVERY.c.state == "pending"
"""A bound value, so that rows are found by their keys and not by the index of due deliveries."""

NEXT_GENERATION = DELIVERY.c.generation + 1
"""The generation of a delivery that a person sends again. A row that was deleted may have been sent: it gets 1."""
RELEASED = "released"
"""Reason of a pending delivery that a person released or replayed: it is not held again."""

NOT_LISTED = "not_listed"
"""Reason of a held delivery of an event that came by webhook, and that the provider's list has not shown yet."""

_CLAIMED = [
    DELIVERY.c[name]
    for name in ("event_seq", "attempts", "reason", "generation", "first_us", "answers", "order_key", "late")
]
ATTEMPT_COLUMNS = ("destination_id", "event_seq", "at_us", "duration_us", "outcome", "detail", "status", "answer")


class DeliveryState(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    WAITING = "waiting"
    DEAD = "dead"
    HELD = "held"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryClaim:
    """The right to attempt one delivery until `lease_us`."""

    destination_id: int
    seq: int
    attempts: int
    """Attempts settled so far."""
    lease_us: int
    released: bool = False
    generation: int = 0
    """How often a person has asked to send it again."""
    first_us: int | None = None
    """The time of its first attempt, in microseconds; None: there was none."""
    answers: int = 0
    """Attempts that were answered 2xx, and for which no receipt came."""
    order_key: int | None = None
    """The next delivery with this key waits for this one; None: none does."""
    late: str | None = None
    """Why it comes after others that occurred after it (`ordering.Late`); None: as far as is known it does not."""
    due_us: int | None = None
    """When it became due, or its last lease ended; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event with everything that its delivery needs. Times are microseconds."""

    source: str
    identity_seed: str
    """The seed of its id for consumers."""
    stream: str
    key: str
    type: str
    occurred_us: int
    first_seen_us: int
    via: Via
    webhook_us: int | None
    """The time of its first webhook; None: none came."""
    received: bool
    """The handler behind the destination has processed it already."""
    imported: bool
    """It was imported: a handler with a webhook of its own has processed it."""
    payload: bytes | None
    """None: it was imported, or its payload was pruned or erased, or it cannot be opened."""
    unopened: str | None = None
    """Why its payload cannot be opened; None: it can, or there is none."""
    erased: bool = False
    """A person had its payload erased."""
    object_key: str | None = None
    """The object that it is about; None: the provider does not say."""
    livemode: bool | None = None
    """False for an event of the vendor's test mode; None: the vendor has no modes."""
    endpoint_version: str | None = None
    """The API version of our endpoint, as the vendor last showed it; None: unknown."""
    headers: str | None = None
    """The kept headers of its webhook, as JSON; None: no webhook brought it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt: its start, its duration, its outcome (`delivered` or a `FailureReason`), and the answer."""

    at_us: int
    duration_us: int
    outcome: str
    detail: str | None = None
    answer: Answer | None = None
    """What of the answer is stored, as it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The end of a claim: the delivery's new state, and the attempt.

    `state` None: it is no longer owed, and its row is deleted. `attempt` None: it was not attempted, and its
    count stays. `next_us` matters only if it stays pending. `answered`: it was answered 2xx, and needs a receipt.
    `applied`: its receipt is there. `passed`: it is dead, and what comes after it in its order need not wait.
    """

    claim: DeliveryClaim
    state: DeliveryState | None
    at_us: int
    next_us: int = 0
    reason: str | None = None
    attempt: Attempt | None = None
    answered: bool = False
    applied: bool = False
    passed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Whether a destination is paused, and the end of its last pause in microseconds (0: there was none)."""

    is_paused: bool = False
    resumed_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedBatch:
    """The claimed deliveries with their events, and when the next one is due, in microseconds (None: there is none)."""

    loaded: list[tuple[DeliveryClaim, StoredEvent]]
    next_due_us: int | None
    switch: Switch = Switch()


def settle_and_claim(
    connection: Connection,
    destination_id: int,
    settlements: Sequence[Settlement],
    *,
    now_us: int,
    limit: int,
    lease_us: int,
) -> ClaimedBatch:
    """Settle finished claims, claim due deliveries and load their events, all in one commit.

    Nothing is claimed while the destination is paused.
    """
    settle(connection, settlements)
    state = switch(connection, destination_id)
    claims = claim(connection, destination_id, now_us, limit, lease_us) if limit > 0 and not state.is_paused else []
    loaded = load(connection, claims) if claims else []
    return ClaimedBatch(loaded=loaded, next_due_us=next_due_us(connection, destination_id), switch=state)


def switch(connection: Connection, destination_id: int) -> Switch:
    """Return whether the destination is paused."""
    query = select(DESTINATION.c.paused_us, DESTINATION.c.resumed_us).where(DESTINATION.c.id == destination_id)
    row = connection.execute(query).first()
    return Switch() if row is None else Switch(is_paused=row.paused_us is not None, resumed_us=row.resumed_us or 0)


def claim(connection: Connection, destination_id: int, now_us: int, limit: int, lease_us: int) -> list[DeliveryClaim]:
    """Claim at most `limit` due deliveries for `lease_us`, the longest due first, and return the claims.

    Their payloads have at most `CLAIM_BYTES` together, unless that of the first one is larger.
    """
    due = (
        select(DELIVERY.c.event_seq, func.coalesce(PAYLOAD.c.size, func.length(PAYLOAD.c.body), 0), DELIVERY.c.next_us)
        .outerjoin(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
        .outerjoin(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
        .where(DELIVERY.c.destination_id == destination_id, DELIVERY.c.next_us <= now_us, PENDING)
        .order_by(DELIVERY.c.next_us, DELIVERY.c.event_seq)
        .limit(limit)
    )
    if dialect.skip_locked(connection):
        due = due.with_for_update(skip_locked=True, of=DELIVERY)
    found = connection.execute(due).all()
    due_at = {seq: next_us for seq, _, next_us in found}
    seqs = sorted(_within(CLAIM_BYTES, ((seq, size) for seq, size, _ in found)))
    if not seqs:
        return []
    until_us = now_us + lease_us
    statement = (  # by their keys alone: with the due time beside them, SQLite walks the index of the whole backlog
        update(DELIVERY)
        .where(DELIVERY.c.destination_id == destination_id, _PENDING_BY_KEY, DELIVERY.c.event_seq.in_(seqs))
        .values(lease_us=until_us, next_us=until_us, wait_us=lease_us)
        .returning(*_CLAIMED)
    )
    return [
        DeliveryClaim(
            destination_id=destination_id,
            seq=row.event_seq,
            attempts=row.attempts,
            lease_us=until_us,
            released=row.reason == RELEASED,
            generation=row.generation,
            first_us=row.first_us,
            answers=row.answers,
            order_key=row.order_key,
            late=row.late,
            due_us=due_at[row.event_seq],
        )
        for row in sorted(connection.execute(statement), key=lambda row: row.event_seq)
    ]


def _within(most_bytes: int, rows: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Yield the seqs of rows (seq, bytes) that have at most so many bytes together, and at least the first."""
    used = 0
    for seq, size in rows:
        used += size
        if used > most_bytes and used > size:
            return
        yield seq


def next_due_us(connection: Connection, destination_id: int) -> int | None:
    """Return the next due time of a pending delivery, ends of leases included; None: nothing is pending."""
    query = select(func.min(DELIVERY.c.next_us)).where(DELIVERY.c.destination_id == destination_id, PENDING)
    return connection.execute(query).scalar()


def load(connection: Connection, claims: Sequence[DeliveryClaim]) -> list[tuple[DeliveryClaim, StoredEvent]]:
    """Return each of `claims`, all of one destination, with its event, in order of seq."""
    by_seq = {claim.seq: claim for claim in claims}
    handlers = sorted({claim.destination_id for claim in claims})
    query = (
        select(
            EVENT.c.seq, EVENT.c.source_id, EVENT.c.erased_us.is_not(None).label("erased"),
            PAYLOAD.c.id.label("payload_id"), PAYLOAD.c.sealed_by,
            SOURCE.c.name.label("source"), IDENTITY_SEED.label("identity_seed"),
            STREAM.c.name.label("stream"), EVENT.c.key, EVENT.c.type, EVENT.c.occurred_us, EVENT.c.first_seen_us,
            EVENT.c.via, EVENT.c.webhook_us, EVENT.c.object_key, EVENT.c.livemode, SOURCE.c.endpoint_version,
            PAYLOAD.c.body.label("payload"), PAYLOAD.c.headers, has_receipt(handlers).label("received"),
            has_receipt([EVERY_HANDLER]).label("imported"),
        )
        .join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        .join(STREAM, STREAM.c.id == EVENT.c.stream_id)
        .outerjoin(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
        .where(EVENT.c.seq.in_(by_seq))
        .order_by(EVENT.c.seq)
    )  # fmt: skip
    rows, ring = [dict(row) for row in connection.execute(query).mappings()], ring_of(connection)
    return [(by_seq[row.pop("seq")], StoredEvent(**_opened(ring, {**row, "via": Via(row["via"])}))) for row in rows]


def _opened(ring: Keyring, row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a `StoredEvent`. What cannot be opened has no payload, and says why."""
    source_id, payload_id, sealed_by = (row.pop(name) for name in ("source_id", "payload_id", "sealed_by"))
    if sealed_by is None:
        return row
    stored = (row.pop("payload"), row.pop("headers"), sealed_by)
    try:
        payload, headers = sealed.open_payload(ring, payload_id, source_id, row["key"], stored)
    except CannotOpen as error:
        return {**row, "payload": None, "unopened": str(error)}
    return {**row, "payload": payload, "headers": headers}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDelivery:
    """A delivery of one event as people see it. Times are microseconds; None: it has not happened."""

    destination: str
    state: DeliveryState
    reason: str | None
    attempts: int
    answered_us: int | None
    """When it was first answered 2xx, where that needs a receipt."""
    applied_us: int | None
    """When its receipt came."""
    done_us: int | None
    late: str | None
    """Why it comes after others that occurred after it."""
    is_ordered: bool
    """It is sent after those before it in its order."""
    is_unproven: bool
    """It waits until the provider's list is complete up to it."""


def of_event(connection: Connection, seq: int) -> list[EventDelivery]:
    """Return the deliveries of an event, by destination."""
    columns = [DELIVERY.c[each.name] for each in fields(EventDelivery) if each.name in DELIVERY.c]
    ordered = DELIVERY.c.order_key.is_not(None).label("is_ordered")
    unproven = DELIVERY.c.unproven_id.is_not(None).label("is_unproven")
    query = select(DESTINATION.c.name.label("destination"), *columns, ordered, unproven)
    query = query.join_from(DELIVERY, DESTINATION, DESTINATION.c.id == DELIVERY.c.destination_id)
    query = query.where(DELIVERY.c.event_seq == seq).order_by(DESTINATION.c.name)
    found = connection.execute(query).mappings()
    return [EventDelivery(**{**row, "state": DeliveryState(row["state"])}) for row in found]


def settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
    """Write the settlements, except those that a newer claim has overtaken, and every attempt.

    What waits for a settled one in its order is next.
    """
    ordered = sorted(settlements, key=lambda each: (each.claim.destination_id, each.claim.seq))
    ended = [each.claim for each in ordered if each.state is not DeliveryState.PENDING]
    lines = {(claim.destination_id, claim.order_key) for claim in ended if claim.order_key is not None}
    ordering.lock(connection, lines)
    dialect.settle(connection, [_settled(each) for each in ordered if each.state is not None], DeliveryState.PENDING)
    withdrawn = [_guard(each.claim) for each in ordered if each.state is None]
    if withdrawn:
        connection.execute(_WITHDRAW, withdrawn)
    ordering.let_pass(connection, [(each.claim.destination_id, each.claim.seq) for each in ordered if each.passed])
    ordering.let_next(connection, lines)
    told = [each.claim.seq for each in ordered if each.attempt and (each.attempt.detail or each.attempt.answer)]
    erased = _erased(connection, told)
    rows = [row for each in ordered for row in _attempt_rows(each, erased)]
    dialect.insert_many(connection, ATTEMPT, ATTEMPT_COLUMNS, rows)


def _erased(connection: Connection, seqs: Sequence[int]) -> Collection[int]:
    """Return those of the events that were erased while an attempt was under way: nothing is kept of what it says."""
    if not seqs:
        return ()
    query = select(EVENT.c.seq).where(EVENT.c.seq.in_(seqs), EVENT.c.erased_us.is_not(None))
    return set(connection.execute(query).scalars())


def fresh(now_us: int) -> dict[str, object]:
    """Return the columns of a delivery that starts over: it is due, has all its attempts, and is not held again.

    If it is ordered, let the next of its line go afterwards.
    """
    return {
        "state": ordering.DUE,
        "attempts": 0,
        "next_us": now_us,
        "wait_us": 0,
        "lease_us": 0,
        "done_us": None,
        "first_us": None,
        "reason": RELEASED,
        "answered_us": None,
        "answers": 0,
        "applied_us": None,
    }


_STILL_OURS = (
    DELIVERY.c.destination_id == bindparam("of_destination"),
    DELIVERY.c.event_seq == bindparam("of_seq"),
    DELIVERY.c.lease_us == bindparam("of_lease"),
    DELIVERY.c.attempts == bindparam("of_attempts"),
    _PENDING_BY_KEY,
)

_WITHDRAW = delete(DELIVERY).where(*_STILL_OURS)


def _guard(claim: DeliveryClaim) -> dict[str, object]:
    return {
        "of_destination": claim.destination_id,
        "of_seq": claim.seq,
        "of_lease": claim.lease_us,
        "of_attempts": claim.attempts,
    }


def _settled(settlement: Settlement) -> tuple[object, ...]:
    """Return the row that `dialect.settle` takes."""
    claim, is_pending = settlement.claim, settlement.state is DeliveryState.PENDING
    return (
        claim.destination_id,
        claim.seq,
        claim.lease_us,
        claim.attempts,
        settlement.state,
        int(settlement.attempt is not None),
        settlement.next_us,
        max(settlement.next_us - settlement.at_us, 0),
        None if is_pending else settlement.at_us,
        settlement.reason,
        None if settlement.attempt is None else settlement.attempt.at_us,
        settlement.at_us if settlement.answered else None,
        int(settlement.answered and not settlement.applied),
        settlement.at_us if settlement.applied else None,
    )


def _attempt_rows(settlement: Settlement, erased: Collection[int]) -> list[tuple[object, ...]]:
    tried, claim = settlement.attempt, settlement.claim
    if tried is None:
        return []
    is_kept = claim.seq not in erased
    detail, answer = (tried.detail, tried.answer) if is_kept else (None, None)
    row = (claim.destination_id, claim.seq, tried.at_us, tried.duration_us, tried.outcome, detail)
    if answer is None:
        return [(*row, None, None)]
    has_text = answer.headers or answer.body
    return [(*row, answer.status, attempts.encoded(answer) if has_text else None)]


def settle_applied(
    connection: Connection, source_id: int, destination_id: int, keys: Sequence[str], now_us: int
) -> int:
    """Settle what the destination is owed of these events, in any state: it says that it has applied them.

    Returns how many were not settled before. An attempt that is under way changes nothing any more.
    """
    seqs: list[int] = []
    for at in range(0, len(keys), CHUNK):
        known = select(EVENT.c.seq).where(EVENT.c.source_id == source_id, EVENT.c.key.in_(keys[at : at + CHUNK]))
        seqs += connection.execute(known).scalars()
    mine = and_(DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq.in_(sorted(seqs)))
    lines = ordering.lines_of(connection, mine)
    ordering.lock(connection, lines)
    is_done = DELIVERY.c.state == DeliveryState.DELIVERED
    late = update(DELIVERY).where(mine, is_done, DELIVERY.c.applied_us.is_(None))
    connection.execute(late.values(applied_us=now_us))
    done = {"state": DeliveryState.DELIVERED.value, "done_us": now_us, "applied_us": now_us, "lease_us": 0}
    count = connection.execute(update(DELIVERY).where(mine, ~is_done).values(**done, unproven_id=None)).rowcount
    ordering.let_next(connection, lines)
    return count


def withdraw(connection: Connection, seqs: Sequence[int], destinations: Collection[int]) -> None:
    """Delete what is pending of these events for these destinations, except what is under way or a person released."""
    ordered = sorted(seqs)
    for at in range(0, len(ordered), CHUNK):
        waiting = (
            DELIVERY.c.destination_id.in_(sorted(destinations)),
            DELIVERY.c.event_seq.in_(ordered[at : at + CHUNK]),
            _PENDING_BY_KEY,
            DELIVERY.c.lease_us == 0,
            func.coalesce(DELIVERY.c.reason, "") != RELEASED,
        )
        connection.execute(delete(DELIVERY).where(*waiting))


def give_back_all(connection: Connection, now_us: int) -> int:
    """End every lease at once and return how many. Only for a process that holds the ledger alone (SQLite)."""
    where = (PENDING, DELIVERY.c.lease_us > 0)
    return connection.execute(update(DELIVERY).where(*where).values(lease_us=0, next_us=now_us, wait_us=0)).rowcount
