"""Rows of sources: their state, and the history of their subscription, since it decides which events are expected."""

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, Text, case, cast, func, insert, or_, select, update

from gapless.domain import from_us, span_us, to_us
from gapless.ledger.engine import dialect
from gapless.ledger.streams import ensure_stream, streams
from gapless.ledger.tables import SOURCE, SUBSCRIPTION
from gapless_reconcilers.kit.contract import Subscription
from gapless_reconcilers.kit.statuses import LONGEST_WAIT

RETIRED_GRACE = timedelta(days=3)
"""Time for which a retired source's path still answers 503, so that its provider keeps retrying."""
DIGEST_KEY_BYTES = 32
UNREADABLE = "the read key may not read it"
READABLE = ("active", "parked")
"""States in which a source is leased; of a parked one only the account is read."""
IDENTITY_SEED: ColumnElement[str] = func.coalesce(SOURCE.c.identity_seed, cast(SOURCE.c.id, Text))
"""The seed of the ids that consumers see. A row of a release that knew no seeds has its id for one."""


def register_source(
    connection: Connection,
    name: str,
    provider: str,
    mode: str,
    start: datetime,
    now: datetime,
    *,
    livemode: bool | None = None,
    in_force: bool = True,
) -> int:
    """Return the id of the source `name`; a new one is created with `start` and its own stream.

    A source that was retired becomes active again. The start of a known source never changes here. `in_force` False:
    the configuration is an older one, and nothing of a known source changes.
    """
    row = {"name": name, "provider": provider, "mode": mode, "start_us": to_us(start), "state_us": to_us(now)}
    if source_named(connection, name) is None:
        dialect.insert_or_ignore(
            connection, SOURCE, {**row, "livemode": livemode, "identity_seed": _free_seed(connection, name)}
        )
    where = SOURCE.c.name == name
    no_key = (where, SOURCE.c.digest_key.is_(None))
    connection.execute(update(SOURCE).where(*no_key).values(digest_key=secrets.token_hex(DIGEST_KEY_BYTES)))
    if in_force:
        connection.execute(update(SOURCE).where(where).values(mode=mode, provider=provider, livemode=livemode))
        state = case((SOURCE.c.other_account.is_(None), "active"), else_="parked")
        back = update(SOURCE).where(where, SOURCE.c.state == "retired").values(state=state, state_us=to_us(now))
        connection.execute(back)
    source_id = int(connection.execute(select(SOURCE.c.id).where(where)).scalar_one())
    ensure_stream(connection, source_id, "")
    return source_id


def _free_seed(connection: Connection, name: str) -> str:
    """Return the name, so that a rebuilt ledger gives events the ids that they had; with a suffix if it is taken."""
    return name if holder_of_seed(connection, name) is None else f"{name}.{secrets.token_hex(8)}"


def holder_of_seed(connection: Connection, seed: str) -> str | None:
    """Return the name of the source that has this identity seed; None: no source has it."""
    is_its = IDENTITY_SEED == seed  # noqa: SIM300 - a condition in SQL
    found: str | None = connection.execute(select(SOURCE.c.name).where(is_its)).scalar()
    return found


def set_identity_seed(connection: Connection, source_id: int, seed: str) -> None:
    """Give the source another identity seed. The ids of all its events change for consumers."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(identity_seed=seed))


def retire_absent(connection: Connection, configured: Sequence[str], now: datetime) -> list[str]:
    """Retire the sources that are no longer configured, and return their names. Their rows stay."""
    names = absent(connection, configured)
    if names:
        connection.execute(update(SOURCE).where(SOURCE.c.name.in_(names)).values(state="retired", state_us=to_us(now)))
    return names


def absent(connection: Connection, configured: Sequence[str]) -> list[str]:
    """Return the names of the sources that are not configured and not retired."""
    where = (SOURCE.c.name.not_in(configured), SOURCE.c.state != "retired")
    return list(connection.execute(select(SOURCE.c.name).where(*where).order_by(SOURCE.c.name)).scalars())


def retired_since(connection: Connection) -> dict[str, int]:
    """Return the time at which each retired source was retired, by name, in microseconds."""
    query = select(SOURCE.c.name, SOURCE.c.state_us).where(SOURCE.c.state == "retired")
    return {name: state_us or 0 for name, state_us in connection.execute(query)}


def rename(connection: Connection, old: str, new: str) -> bool:
    """Give the source `old` the name `new`; its id and rows stay. False if there is no `old`, or `new` is taken."""
    if connection.execute(select(SOURCE.c.id).where(SOURCE.c.name == new)).first() is not None:
        return False
    return connection.execute(update(SOURCE).where(SOURCE.c.name == old).values(name=new)).rowcount == 1


def source_row(connection: Connection, source_id: int) -> RowMapping:
    """Return the whole row of a source."""
    return connection.execute(select(SOURCE).where(SOURCE.c.id == source_id)).mappings().one()


def source_named(connection: Connection, name: str) -> RowMapping | None:
    """Return the whole row of the source `name`, or None."""
    return connection.execute(select(SOURCE).where(SOURCE.c.name == name)).mappings().first()


def names(connection: Connection) -> dict[int, str]:
    """Return the names of all sources by their ids, retired ones too."""
    return {row.id: row.name for row in connection.execute(select(SOURCE.c.id, SOURCE.c.name))}


def _may_ask(now_us: int) -> ColumnElement[bool]:
    """Return the condition that the provider of a source wants no pause now."""
    until = SOURCE.c.waiting_until_us
    return or_(until.is_(None), until <= now_us, until > now_us + span_us(LONGEST_WAIT))


class DueSource(NamedTuple):
    """A source whose next run is due since `next_pass_us`."""

    name: str
    next_pass_us: int


def due(connection: Connection, now_us: int) -> list[DueSource]:
    """Return the sources whose next run is due, the longest overdue first. Of a parked one only the account is read.

    A source whose provider wants a pause is not due. A pause that is further ahead than any may be counts as over.
    """
    where = (SOURCE.c.state.in_(READABLE), SOURCE.c.next_pass_us <= now_us, _may_ask(now_us))
    query = select(SOURCE.c.name, SOURCE.c.next_pass_us).where(*where).order_by(SOURCE.c.next_pass_us)
    return [DueSource(*row) for row in connection.execute(query)]


class UnreadSource(NamedTuple):
    """A source of which webhooks came since it was last read. Times are microseconds."""

    name: str
    unread_us: int
    last_webhook_us: int
    read_us: int
    next_pass_us: int


def unread(connection: Connection, now_us: int) -> list[UnreadSource]:
    """Return the sources of which webhooks came since their last run, and whose provider wants no pause."""
    columns = [SOURCE.c[name] for name in UnreadSource._fields]
    where = (SOURCE.c.state == "active", SOURCE.c.unread_us.is_not(None), SOURCE.c.read_us.is_not(None))
    return [UnreadSource(*row) for row in connection.execute(select(*columns).where(*where, _may_ask(now_us)))]


def make_due(connection: Connection, source_id: int, due: Callable[[datetime | None], datetime]) -> None:
    """Bring the next pass forward to the time that `due` computes from the oldest complete pass of the streams."""
    completed = [stream.last_complete_pass_us for stream in streams(connection, source_id)]
    oldest = None if None in completed else from_us(min(us for us in completed if us is not None))
    at_us = to_us(due(oldest))
    where = (SOURCE.c.id == source_id, SOURCE.c.next_pass_us > at_us)
    connection.execute(update(SOURCE).where(*where).values(next_pass_us=at_us, wait_us=0))


def make_due_now(connection: Connection, source_id: int, now_us: int) -> None:
    """Make the source due now; a run that is under way is followed by another."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(next_pass_us=now_us, wait_us=0))


def note_skew(connection: Connection, source_id: int, skew_us: int) -> None:
    """Store by how much the ledger's clock is ahead of the provider's."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(skew_us=skew_us))


def greatest_skew_us(connection: Connection) -> int:
    """Return by how much the ledger's clock is ahead of the active source's whose clock is most behind; at least 0."""
    query = select(func.max(SOURCE.c.skew_us)).where(SOURCE.c.state == "active")
    return max(0, connection.execute(query).scalar() or 0)


def ids_in_state(connection: Connection, *states: str) -> list[int]:
    """Return the ids of the sources in those states."""
    return list(connection.execute(select(SOURCE.c.id).where(SOURCE.c.state.in_(states))).scalars())


def sources(connection: Connection) -> list[dict[str, Any]]:
    """Return every source with its provider, mode, state, start and identity seed, by name."""
    columns = (SOURCE.c[name] for name in ("name", "provider", "mode", "state", "start_us"))
    query = select(*columns, IDENTITY_SEED.label("identity_seed")).order_by(SOURCE.c.name)
    return [dict(row) for row in connection.execute(query).mappings()]


def note_types(connection: Connection, source_id: int, types: Sequence[str] | None, origin: str) -> None:
    """Store the subscribed types as last known."""
    values = {"types": None if types is None else json.dumps(list(types)), "types_origin": origin}
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(**values))


def note_subscription(connection: Connection, source_id: int, subscription: Subscription | None, now: datetime) -> None:
    """Store the subscription as the provider has it, and the time of each change. None: it could not be read."""
    now_us = to_us(now)
    values: dict[str, object] = {"subscription_healthy": None, "subscription_reason": UNREADABLE}
    if subscription is not None:
        values = {"subscription_healthy": subscription.healthy, "subscription_reason": subscription.reason}
        _note_change(connection, source_id, subscription, now_us)
    if subscription is not None and subscription.healthy:
        values |= {"subscription_good_us": now_us, "endpoint_version": subscription.api_version}
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(**values, subscription_us=now_us))


def _note_change(connection: Connection, source_id: int, subscription: Subscription, now_us: int) -> None:
    row = {
        "healthy": subscription.healthy,
        "reason": subscription.reason,
        "types": None if subscription.types is None else json.dumps(list(subscription.types)),
        "api_version": subscription.api_version,
        "own_covered": subscription.own_covered,
        "streams_covered": subscription.streams_covered,
    }
    newest = select(SUBSCRIPTION).where(SUBSCRIPTION.c.source_id == source_id).order_by(SUBSCRIPTION.c.id.desc())
    last = connection.execute(newest.limit(1)).mappings().first()
    if last is None or any(last[name] != value for name, value in row.items()):
        connection.execute(insert(SUBSCRIPTION).values(source_id=source_id, since_us=now_us, **row))


def note_lapse(connection: Connection, source_id: int) -> None:
    """Note that our endpoint may be inactive, from when it was last seen healthy, else from the source's start."""
    since = func.coalesce(SOURCE.c.subscription_good_us, SOURCE.c.start_us)
    where = (SOURCE.c.id == source_id, SOURCE.c.lapsed_us.is_(None))
    connection.execute(update(SOURCE).where(*where).values(lapsed_us=since))


def end_lapse(connection: Connection, source_id: int) -> None:
    """Note that the endpoint is active again, once the loss is recorded."""
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(lapsed_us=None))


def subscriptions(connection: Connection, source_id: int) -> list[dict[str, Any]]:
    """Return each recorded state of our endpoint with its start, oldest first."""
    query = select(SUBSCRIPTION).where(SUBSCRIPTION.c.source_id == source_id).order_by(SUBSCRIPTION.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]
