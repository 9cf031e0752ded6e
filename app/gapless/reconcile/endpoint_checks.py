"""Ask a provider how our endpoint stands, enable it again where that is asked for, and note what it means."""

import logging
from collections.abc import Iterable
from datetime import datetime

from gapless.domain import Source, TypesOrigin, from_us
from gapless.ledger import Connection, audit_log, sources, watermarks
from gapless.ledger.streams import Stream, ensure_stream
from gapless.ledger.watermarks import UnrecoverableInterval
from gapless.provider_api.health import read_subscription, repair_endpoint, stream_names
from gapless.reconcile.context import LeasedSource
from gapless_reconcilers.kit.contract import Subscription
from gapless_reconcilers.kit.errors import NeedsOperator, UnexpectedShape

log = logging.getLogger(__name__)


class SubscriptionInactive(NeedsOperator):
    """Our endpoint is not active, and the provider lists only what happens while it is."""


async def check(leased: LeasedSource) -> None:
    """Ask the provider about our endpoint and the account's streams."""
    if leased.policy.repair:
        await _repair(leased)
    await record_subscription(leased, await read_subscription(leased.client, leased.policy.webhook_url))
    for name in await stream_names(leased.client):
        await leased.write(ensure_stream, source_id=leased.source.id, name=name)
    leased.memory.endpoint_us = leased.runtime.elapsed_us


async def precondition(
    leased: LeasedSource, streams: Iterable[Stream], *, is_known: bool
) -> SubscriptionInactive | None:
    """Check that our endpoint is active, where the list is complete only then; return the error if it is not.

    `is_known`: the provider was asked just now. While it is inactive, what the list still has from before is read and
    recorded, but proves nothing later: see `Circumstances.proven_until`. When it is active again, the time since it was
    last seen active is unrecoverable: it can no longer be listed.
    """
    source_id = leased.source.id
    if not is_known:
        subscription = await read_subscription(leased.client, leased.policy.webhook_url)
        await record_subscription(leased, subscription)
    row = await leased.runtime.read(sources.source_row, source_id=source_id)
    if row["subscription_healthy"] is False:
        await leased.write(sources.note_lapse, source_id=source_id)
        return SubscriptionInactive(f"{row['subscription_reason']}: meanwhile the list proves nothing")
    if row["lapsed_us"] is not None and row["subscription_healthy"]:
        lost = UnrecoverableInterval(
            start_us=min(row["lapsed_us"], row["subscription_us"]),
            end_us=row["subscription_us"],
            reason="subscription_inactive",
        )
        log.error(
            "subscription_was_inactive",
            extra={
                "source": leased.source.name,
                "start": str(from_us(lost.start_us)),
                "end": str(from_us(lost.end_us)),
            },
        )
        await leased.write(_end_lapse, source_id=source_id, stream_ids=[each.id for each in streams], loss=lost)
    return None


async def record_subscription(leased: LeasedSource, subscription: Subscription | None) -> None:
    """Record our endpoint as the provider has it, in the ledger and in `runtime.sources`. None: it is unknown."""
    leased.require_same_key()
    await leased.write(_note_subscription, now=leased.runtime.clock(), source=leased.source, subscription=subscription)
    if subscription is not None:
        current = leased.source  # its secrets may have been replaced meanwhile
        leased.runtime.sources.replace(current.subscribed(subscription, leased.runtime.clock()))


async def _repair(leased: LeasedSource) -> None:
    """Enable our endpoint again (opt-in). If the key may not do that, log it: the list can still be read."""
    try:
        done = await repair_endpoint(leased.client, leased.policy.webhook_url)
    except (NeedsOperator, UnexpectedShape) as error:
        log.warning("subscription_not_repaired", extra={"source": leased.source.name, "error": str(error)})
        return
    if done:
        await _note_repair(leased)


async def _note_repair(leased: LeasedSource) -> None:
    """Write into the audit log that our endpoint was enabled."""
    runtime = leased.runtime
    repaired = audit_log.Action(
        at_us=runtime.now_us,
        actor=audit_log.DAEMON,
        role=audit_log.DAEMON,
        action="source.repair",
        subject=leased.source.name,
        reason="repair = true",
    )
    await runtime.write(audit_log.add, repaired, runtime.audit_key)


def _note_subscription(
    connection: Connection, now: datetime, source: Source, subscription: Subscription | None
) -> None:
    sources.note_subscription(connection, source.id, subscription, now)
    if subscription is not None and subscription.types is not None and source.types_origin is not TypesOrigin.CONFIG:
        sources.note_types(connection, source.id, subscription.types, TypesOrigin.SUBSCRIPTION.value)


def _end_lapse(connection: Connection, source_id: int, stream_ids: Iterable[int], loss: UnrecoverableInterval) -> None:
    for stream_id in stream_ids:
        watermarks.note_unrecoverable(connection, stream_id, loss, loss.end_us)
    sources.end_lapse(connection, source_id)
