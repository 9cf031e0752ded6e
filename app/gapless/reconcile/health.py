"""What the provider says of our key and our endpoint: whose account, which types, which streams.

Read at start, once an hour and when a credential changes. What cannot be read is unknown, never wrong.
"""

import logging
from datetime import datetime

from gapless.domain import Source, TypesOrigin
from gapless.ledger import Connection, subscriptions
from gapless.provider_api.health import ProviderHealth
from gapless.reconcile.context import LeasedSource
from gapless_reconcilers.kit.errors import NeedsOperator

log = logging.getLogger(__name__)


class AccountShared(NeedsOperator):
    """Another source reads the same account, so that each event would be counted twice."""


class SubscriptionInactive(NeedsOperator):
    """While our endpoint is not active, the provider's list shows nothing of what happens."""


async def record_health(leased: LeasedSource, known: ProviderHealth) -> None:
    """Record what the provider said, in the ledger and in `runtime.sources`. Raises `AccountShared`."""
    source = leased.source
    twins = await leased.write(_write, now=leased.runtime.clock(), source=source, known=known)
    if twins and not leased.policy.share_account:
        raise AccountShared(
            f"source {source.name!r} reads the same account as {', '.join(twins)}: each event would be recorded twice; "
            "remove one, or set share_account = true"
        )
    if known.subscription is not None:
        leased.runtime.sources.replace(source.subscribed(known.subscription, leased.runtime.clock()))


def _write(connection: Connection, now: datetime, source: Source, known: ProviderHealth) -> list[str]:
    twins = (
        [] if known.account is None else subscriptions.note_account(connection, source.id, known.account.fingerprint)
    )
    told = known.subscription
    subscriptions.note_subscription(connection, source.id, told, now)
    if told is not None and told.types is not None and source.types_origin is not TypesOrigin.CONFIG:
        subscriptions.note_types(connection, source.id, told.types, TypesOrigin.SUBSCRIPTION.value)
    return twins
