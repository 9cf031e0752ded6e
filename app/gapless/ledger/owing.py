"""Turns new events into deliveries: the state in which each begins, and its place in its order.

The transaction holds the locks of the lines that it adds to (`lines_of`, `ordering.lock`) since before it recorded the
events, so that nobody else adds to them, or settles what is in them.
"""

from collections.abc import Iterable, MutableMapping, Sequence
from operator import itemgetter

import msgspec
from sqlalchemy import Connection

from gapless.domain import Owed
from gapless.ledger import ordering, proof, receipts
from gapless.ledger.engine import dialect
from gapless.ledger.ordering import DELIVERY_CHANNEL, Late, Line
from gapless.ledger.tables import DELIVERY

COLUMNS = ("destination_id", "event_seq", "state", "reason", "attempts", "next_us", "lease_us", "created_us")
MORE_COLUMNS = (*COLUMNS, "done_us", "applied_us", "order_key", "order_us", "late", "unproven_id")
NOTHING_MORE = (None,) * (len(MORE_COLUMNS) - len(COLUMNS))


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A delivery of a new event. Times are microseconds."""

    seq: int
    source_id: int
    key: str
    occurred_us: int
    recorded_us: int
    is_recovered: bool
    """No webhook brought the event by itself."""
    owed: Owed
    state: str
    reason: str | None


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The place of a delivery in its order."""

    key: int | None
    us: int | None
    waits: bool
    late: Late | None
    unproven_id: int | None = None


NO_PLACE = Place(key=None, us=None, waits=False, late=None)


def lines_of(owed: Iterable[Owed]) -> set[Line]:
    """Return the lines that these deliveries are added to."""
    keys = ((each.destination_id, key) for each in owed for key in (each.order_key, each.proof_key))
    return {(destination_id, key) for destination_id, key in keys if key is not None}


def add(connection: Connection, bundle: dialect.Bundle, new: Sequence[NewDelivery]) -> bool:
    """Gather the deliveries, which come in order of seq, in `bundle`. Return True if one of them is to be sent.

    What the ledger says of lines, receipts and proof is looked up first, only for the deliveries that need it.
    """
    confirming = {(each.source_id, each.key, each.owed.destination_id) for each in new if each.owed.confirms}
    applied = receipts.times(connection, confirming) if confirming else {}
    lines = lines_of(each.owed for each in new)
    busy, newest = ordering.busy(connection, lines), ordering.newest(connection, lines)
    proven = {(each.owed.destination_id, each.source_id) for each in new if each.owed.proof_key is not None}
    released = proof.released_up_to(connection, proven)
    plain, others = list[dialect.Row](), list[dialect.Row]()
    for each in new:
        row = (each.owed.destination_id, each.seq)
        applied_us = applied.get((each.source_id, each.key, each.owed.destination_id))
        is_applied = applied_us is not None
        if each.owed.proof_key is None:
            place = place_of(each, busy, newest, is_applied=is_applied)
        else:
            up_to_us = released.get((each.owed.destination_id, each.source_id), 0)
            place = unproven_place_of(each, up_to_us, is_applied=is_applied)
        if place is NO_PLACE and applied_us is None:
            plain.append((*row, each.state, each.reason, 0, each.owed.not_before_us, 0, each.recorded_us))
            continue
        state, done_us = ("waiting" if place.waits else each.state), None
        if applied_us is not None:
            state, done_us = "delivered", each.recorded_us
        begun = (*row, state, each.reason, 0, each.owed.not_before_us, 0, each.recorded_us)
        others.append((*begun, done_us, applied_us, place.key, place.us, place.late, place.unproven_id))
    if others:  # all of them in one insert: a bundle has one of each table
        rows = sorted([*others, *(row + NOTHING_MORE for row in plain)], key=itemgetter(0, 1))
        bundle.insert_many(DELIVERY, MORE_COLUMNS, rows)
    else:
        bundle.insert_many(DELIVERY, COLUMNS, sorted(plain))
    if new:
        bundle.notify(DELIVERY_CHANNEL)
    return bool(new)


def place_of(new: NewDelivery, busy: set[Line], newest: MutableMapping[Line, int], *, is_applied: bool) -> Place:
    """Return the place of the next new delivery of its line, and note it in `busy` and `newest`.

    `newest` has the latest time at which an event of the line occurred. What a list found of before that comes late.
    """
    if new.owed.order_key is None:
        return NO_PLACE
    line = (new.owed.destination_id, new.owed.order_key)
    latest_us = max(newest.get(line, new.occurred_us), new.occurred_us)
    late = Late.RECOVERED if new.is_recovered and new.occurred_us < latest_us else None
    newest[line] = latest_us
    waits = new.state == "pending" and line in busy
    if not is_applied:
        busy.add(line)
    return Place(key=new.owed.order_key, us=latest_us, waits=waits, late=late)


def unproven_place_of(new: NewDelivery, released_us: int, *, is_applied: bool) -> Place:
    """Return the place of a new delivery that must be proven: it waits, unless events after it were released already.

    Then it comes late, out of any order.
    """
    if new.occurred_us < released_us:
        return Place(key=None, us=None, waits=False, late=Late.RECOVERED)
    return Place(
        key=new.owed.order_key,
        us=new.occurred_us,
        waits=new.state == "pending",
        late=None,
        unproven_id=None if is_applied else new.source_id,
    )
