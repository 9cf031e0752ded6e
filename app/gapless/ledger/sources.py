"""Rows of sources, streams and destinations: who they are, since when, and in which state."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from gapless.domain import from_us, to_us
from gapless.ledger.engine import dialect
from gapless.ledger.streams import ensure_stream, streams
from gapless.ledger.tables import SOURCE, SUBSCRIPTION
from gapless_reconcilers.kit.contract import Subscription

RETIRED_GRACE = timedelta(days=3)
"""How long a retired source's path still answers 503, so that its provider keeps retrying."""


def register_source(connection: Connection, name: str, provider: str, mode: str, start: datetime, now: datetime) -> int:
    """The id of the source `name`; made with `start`, and its own stream, if it is new.

    A source that was retired becomes active again. The start of a known source never changes here.
    """
    row = {"name": name, "provider": provider, "mode": mode, "start_us": to_us(start), "state_us": to_us(now)}
    dialect.insert_or_ignore(connection, SOURCE, row)
    where = SOURCE.c.name == name
    connection.execute(update(SOURCE).where(where).values(mode=mode, provider=provider))
    active = update(SOURCE).where(where, SOURCE.c.state == "retired").values(state="active", state_us=to_us(now))
    connection.execute(active)
    source_id = int(connection.execute(select(SOURCE.c.id).where(where)).scalar_one())
    ensure_stream(connection, source_id, "")
    return source_id


def retire_absent(connection: Connection, configured: Sequence[str], now: datetime) -> list[str]:
    """Retire the sources that are no longer configured; returns their names. Their rows stay."""
    where = (SOURCE.c.name.not_in(configured), SOURCE.c.state != "retired")
    names = list(connection.execute(select(SOURCE.c.name).where(*where)).scalars())
    if names:
        connection.execute(update(SOURCE).where(SOURCE.c.name.in_(names)).values(state="retired", state_us=to_us(now)))
    return names


def retired_since(connection: Connection) -> dict[str, int]:
    """When each retired source was retired, by name."""
    query = select(SOURCE.c.name, SOURCE.c.state_us).where(SOURCE.c.state == "retired")
    return {name: state_us or 0 for name, state_us in connection.execute(query)}


def rename(connection: Connection, old: str, new: str) -> bool:
    """Give the source `old` the name `new`; its id and rows stay. False if there is no `old`, or `new` is taken."""
    if connection.execute(select(SOURCE.c.id).where(SOURCE.c.name == new)).first() is not None:
        return False
    return connection.execute(update(SOURCE).where(SOURCE.c.name == old).values(name=new)).rowcount == 1


def source_row(connection: Connection, source_id: int) -> RowMapping:
    """The whole row of a source."""
    return connection.execute(select(SOURCE).where(SOURCE.c.id == source_id)).mappings().one()


def source_named(connection: Connection, name: str) -> RowMapping | None:
    """The whole row of the source `name`, or None."""
    return connection.execute(select(SOURCE).where(SOURCE.c.name == name)).mappings().first()


def due(connection: Connection, now_us: int) -> list[str]:
    """Active sources whose next pass has come, the longest overdue first."""
    where = (SOURCE.c.state == "active", SOURCE.c.next_pass_us <= now_us)
    return list(connection.execute(select(SOURCE.c.name).where(*where).order_by(SOURCE.c.next_pass_us)).scalars())


def make_due(connection: Connection, source_id: int, due: Callable[[datetime | None], datetime]) -> None:
    """Bring the next pass forward to what `due` says of the oldest complete pass of the source's streams."""
    completed = [stream.last_complete_pass_us for stream in streams(connection, source_id)]
    oldest = None if None in completed else from_us(min(us for us in completed if us is not None))
    at_us = to_us(due(oldest))
    where = (SOURCE.c.id == source_id, SOURCE.c.next_pass_us > at_us)
    connection.execute(update(SOURCE).where(*where).values(next_pass_us=at_us))


def make_due_now(connection: Connection, source_id: int, now_us: int) -> None:
    """Make the source due now; a turn that is under way is followed by another."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(next_pass_us=now_us))


def ids_in_state(connection: Connection, state: str) -> list[int]:
    """The sources in that state."""
    return list(connection.execute(select(SOURCE.c.id).where(SOURCE.c.state == state)).scalars())


def sources(connection: Connection) -> list[dict[str, Any]]:
    """Every source with its provider, mode, state and start, by name."""
    columns = (SOURCE.c[name] for name in ("name", "provider", "mode", "state", "start_us"))
    return [dict(row) for row in connection.execute(select(*columns).order_by(SOURCE.c.name)).mappings()]


def note_account(connection: Connection, source_id: int, fingerprint: str) -> list[str]:
    """Keep whose key the source reads with; returns the names of other active sources on the same account."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(account=fingerprint))
    twins = (SOURCE.c.account == fingerprint, SOURCE.c.id != source_id, SOURCE.c.state != "retired")
    return list(connection.execute(select(SOURCE.c.name).where(*twins)).scalars())


def note_types(connection: Connection, source_id: int, types: Sequence[str] | None, origin: str) -> None:
    """Keep the subscribed types as last known."""
    values = {"types": None if types is None else json.dumps(list(types)), "types_origin": origin}
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(**values))


UNREADABLE = "the read key may not read it"


def note_subscription(connection: Connection, source_id: int, told: Subscription | None, now: datetime) -> None:
    """Keep what the provider said of our endpoint, and since when it says so; None: it could not be read."""
    now_us = to_us(now)
    values: dict[str, object] = {"subscription_healthy": None, "subscription_reason": UNREADABLE}
    if told is not None:
        values = {"subscription_healthy": told.healthy, "subscription_reason": told.reason}
        _note_change(connection, source_id, told, now_us)
    if told is not None and told.healthy:
        values["subscription_good_us"] = now_us
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(**values, subscription_us=now_us))


def _note_change(connection: Connection, source_id: int, told: Subscription, now_us: int) -> None:
    row = {
        "healthy": told.healthy,
        "reason": told.reason,
        "types": None if told.types is None else json.dumps(list(told.types)),
        "api_version": told.api_version,
        "own_covered": told.own_covered,
        "streams_covered": told.streams_covered,
    }
    newest = select(SUBSCRIPTION).where(SUBSCRIPTION.c.source_id == source_id).order_by(SUBSCRIPTION.c.id.desc())
    last = connection.execute(newest.limit(1)).mappings().first()
    if last is None or any(last[name] != value for name, value in row.items()):
        connection.execute(insert(SUBSCRIPTION).values(source_id=source_id, since_us=now_us, **row))


def note_lapse(connection: Connection, source_id: int) -> None:
    """Remember since when our endpoint may have been inactive: when it was last seen healthy, or the source's start."""
    since = func.coalesce(SOURCE.c.subscription_good_us, SOURCE.c.start_us)
    where = (SOURCE.c.id == source_id, SOURCE.c.lapsed_us.is_(None))
    connection.execute(update(SOURCE).where(*where).values(lapsed_us=since))


def end_lapse(connection: Connection, source_id: int) -> None:
    """The endpoint is active again, and what was lost is written down."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(lapsed_us=None))


def subscriptions(connection: Connection, source_id: int) -> list[dict[str, Any]]:
    """How our endpoint was, from when on, oldest first."""
    query = select(SUBSCRIPTION).where(SUBSCRIPTION.c.source_id == source_id).order_by(SUBSCRIPTION.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]
