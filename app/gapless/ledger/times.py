"""The ledger's clock, and the due times that a jump of it has made wrong: moved with it, or made due.

A due time is stored with the wait that ends at it, so that one that lies further ahead than its wait can be told.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Table, case, func, or_, select, update

from gapless.clock import TOLERANCE_US, ProcessClock
from gapless.domain import from_us
from gapless.ledger.deliveries import BEGAN, PENDING
from gapless.ledger.engine import Store, dialect
from gapless.ledger.tables import BUDGET, BUDGET_USE, DELIVERY, DESTINATION, MISSING, PASS, SOURCE

MISSING_BEGAN = MISSING.c.next_attempt_us - func.coalesce(
    MISSING.c.wait_us, MISSING.c.next_attempt_us - MISSING.c.found_us
)
SOURCE_BEGAN = SOURCE.c.next_pass_us - func.coalesce(SOURCE.c.wait_us, SOURCE.c.interval_us, 0)


async def ledger_time(store: Store, clock: ProcessClock) -> tuple[datetime, timedelta]:
    """Return the time of the ledger's clock, and how long it took to read that. Raises `StoreError`.

    That clock is PostgreSQL's; a SQLite ledger has none of its own, so it is the machine's.
    """
    if not dialect.has_clock(store.dialect):
        return clock.machine(), timedelta(0)
    asked_us = clock.elapsed_us()
    now_us = await store.read(dialect.database_now_us)
    took_us = clock.elapsed_us() - asked_us
    return from_us(now_us + took_us // 2), timedelta(microseconds=took_us)


def make_due(connection: Connection, now_us: int) -> dict[str, int]:
    """Make everything due whose wait would begin in the future. Return how many of each kind: only those that occur.

    A delivery that is under way is due again after its lease, reckoned from now.
    """
    latest_us = now_us + TOLERANCE_US
    wrong = (MISSING.c.state == "open", MISSING.c.next_attempt_us > latest_us, latest_us < MISSING_BEGAN)
    found = {
        "source": _change(connection, SOURCE, latest_us < SOURCE_BEGAN, next_pass_us=now_us, wait_us=0),
        "missing": _change(connection, MISSING, *wrong, next_attempt_us=now_us, wait_us=0),
        "delivery": 0,
    }
    under_way = DELIVERY.c.lease_us > 0
    due = {
        "next_us": case((under_way, now_us + func.coalesce(DELIVERY.c.wait_us, 0)), else_=now_us),
        "wait_us": case((under_way, func.coalesce(DELIVERY.c.wait_us, 0)), else_=0),
    }
    for destination in _destinations(connection):
        found["delivery"] += _change(connection, DELIVERY, *_waiting(destination, latest_us, BEGAN), **due)
    _change(connection, SOURCE, SOURCE.c.last_webhook_us > latest_us, last_webhook_us=now_us)
    return {kind: count for kind, count in found.items() if count}


def any_ahead(connection: Connection, now_us: int) -> bool:
    """Return True if `make_due` has something to do."""
    latest_us = now_us + TOLERANCE_US
    queries = [
        select(SOURCE.c.id).where(or_(latest_us < SOURCE_BEGAN, SOURCE.c.last_webhook_us > latest_us)),
        select(MISSING.c.id).where(
            MISSING.c.state == "open", MISSING.c.next_attempt_us > latest_us, latest_us < MISSING_BEGAN
        ),
    ]
    queries += [
        select(DELIVERY.c.event_seq).where(*_waiting(destination, latest_us, BEGAN))
        for destination in _destinations(connection)
    ]
    return any(connection.execute(query.limit(1)).first() is not None for query in queries)


def move(connection: Connection, now_us: int, by_us: int) -> None:
    """Move every due time by as much as the clock was set at `now_us`, so that no wait gets longer or shorter.

    Only for a process that holds the ledger alone (SQLite), whose clock it is. What is due stays due.
    """
    after_us = now_us + min(by_us, 0)
    for destination in _destinations(connection):
        moved = {"next_us": DELIVERY.c.next_us + by_us, "wait_us": DELIVERY.c.next_us - BEGAN}
        _change(connection, DELIVERY, *_waiting(destination, after_us, DELIVERY.c.next_us), **moved)
        tried = (DELIVERY.c.destination_id == destination, PENDING, DELIVERY.c.first_us.is_not(None))
        _change(connection, DELIVERY, *tried, first_us=DELIVERY.c.first_us + by_us)
    resumed = DESTINATION.c.resumed_us.is_not(None)
    _change(connection, DESTINATION, resumed, resumed_us=DESTINATION.c.resumed_us + by_us)
    waiting = (MISSING.c.state == "open", MISSING.c.next_attempt_us > after_us)
    moved = {"next_attempt_us": MISSING.c.next_attempt_us + by_us, "wait_us": MISSING.c.next_attempt_us - MISSING_BEGAN}
    _change(connection, MISSING, *waiting, **moved)
    _change(connection, SOURCE, SOURCE.c.next_pass_us > after_us, next_pass_us=SOURCE.c.next_pass_us + by_us)
    _change(
        connection, SOURCE, SOURCE.c.waiting_until_us > after_us, waiting_until_us=SOURCE.c.waiting_until_us + by_us
    )
    _change(connection, PASS, PASS.c.next_attempt_us > after_us, next_attempt_us=PASS.c.next_attempt_us + by_us)
    _move_purses(connection, by_us)


def _move_purses(connection: Connection, by_us: int) -> None:
    """Move what was asked of providers. Starts become negative on the way, so that no two rows are ever equal."""
    moved = {name: BUDGET.c[name] + by_us for name in ("period_start_us", "at_us", "halved_until_us")}
    connection.execute(update(BUDGET).values(**moved))
    connection.execute(update(BUDGET_USE).values(start_us=-(BUDGET_USE.c.start_us + by_us)))
    connection.execute(update(BUDGET_USE).values(start_us=-BUDGET_USE.c.start_us))


def _destinations(connection: Connection) -> list[int]:
    return list(connection.execute(select(DESTINATION.c.id)).scalars())


def _waiting(destination_id: int, after_us: int, began: ColumnElement[int]) -> tuple[ColumnElement[bool], ...]:
    """Return the condition of pending deliveries, so that the index of due deliveries serves it."""
    return (DELIVERY.c.destination_id == destination_id, PENDING, DELIVERY.c.next_us > after_us, began > after_us)


def _change(connection: Connection, table: Table, *where: ColumnElement[bool], **values: object) -> int:
    return connection.execute(update(table).where(*where).values(**values)).rowcount
