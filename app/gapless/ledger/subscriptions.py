"""What the provider says of our account, our endpoint and the types that it is subscribed to, and since when."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from gapless.domain import to_us
from gapless.ledger.tables import SOURCE, SUBSCRIPTION
from gapless_reconcilers.kit.contract import Subscription


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
