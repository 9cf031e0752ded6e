"""What the provider says of our key and our endpoint: whose account, which types, which streams.

Read at start, once an hour and when a credential changes. What cannot be read is unknown, never wrong.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from gapless.domain import Source, Sources, TypePatterns, TypesOrigin, from_us
from gapless.ledger import Connection
from gapless.ledger import sources as rows
from gapless.reconcile.fetch import Fetcher
from gapless.reconcile.road import Claim
from gapless_reconcilers.kit.contract import (
    Account,
    ListsStreams,
    ReadsAccount,
    ReadsSubscription,
    RegistersEndpoint,
    Subscription,
)
from gapless_reconcilers.kit.errors import CredentialsRejected, NeedsOperator, OptionsInvalid, UnexpectedShape

log = logging.getLogger(__name__)


class AccountShared(NeedsOperator):
    """Another source reads the same account, so that each event would be counted twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the provider told; None where it did not, or may not."""

    account: Account | None = None
    subscription: Subscription | None = None


class SubscriptionInactive(NeedsOperator):
    """While our endpoint is not active, the provider's list shows nothing of what happens."""


async def ask(fetcher: Fetcher, webhook_url: str) -> Known:
    """Ask whose account it is and how our endpoint stands.

    A permission that the key lacks leaves its answer unknown. Raises `Retryable` and `UnexpectedShape`.
    """
    provider = fetcher.source.provider
    account = None
    try:
        if isinstance(provider, ReadsAccount):
            account = provider.read_account(await fetcher.send(provider.account_request()))
    except (CredentialsRejected, OptionsInvalid) as error:
        log.info("account_unknown", extra={"source": fetcher.source.name, "error": str(error)})
    return Known(account=account, subscription=await ask_subscription(fetcher, webhook_url))


async def ask_subscription(fetcher: Fetcher, webhook_url: str) -> Subscription | None:
    """How our endpoint stands; None: unknown. Raises `Retryable`."""
    provider = fetcher.source.provider
    try:
        if isinstance(provider, ReadsSubscription):
            response = await fetcher.send(provider.subscription_request())
            return provider.read_subscription(response, webhook_url)
    except (CredentialsRejected, OptionsInvalid, UnexpectedShape) as error:
        log.info("subscription_unknown", extra={"source": fetcher.source.name, "error": str(error)})
    return None


async def repair(fetcher: Fetcher, webhook_url: str) -> bool:
    """Switch our endpoint on again if it is there and off; True if that was asked for. Raises `ProviderError`s."""
    provider, told = fetcher.source.provider, await ask_subscription(fetcher, webhook_url)
    if told is None or told.healthy or not isinstance(provider, RegistersEndpoint):
        return False
    request = provider.repair_request(told, webhook_url)
    if request is None:
        return False
    await fetcher.send(request)
    log.warning("subscription_repaired", extra={"source": fetcher.source.name, "reason": told.reason})
    return True


async def note(claim: Claim, sources: Sources, known: Known) -> None:
    """Keep what was told, in the ledger and in the book of sources. Raises `AccountShared`."""
    source = claim.source
    twins = await claim.write(partial(_write, now=claim.road.clock(), source=source, known=known))
    if twins and not claim.policy.share_account:
        raise AccountShared(
            f"source {source.name!r} reads the same account as {', '.join(twins)}: each event would be recorded twice; "
            "remove one, or set share_account = true"
        )
    if known.subscription is not None:
        learn(sources, source, known.subscription, claim.road.clock())


def learn(sources: Sources, source: Source, subscription: Subscription, now: datetime) -> None:
    """Let the source expect what the subscription names from `now` on, unless the configuration already says it."""
    changes: dict[str, object] = {}
    if subscription.healthy:
        changes |= {"own_covered": subscription.own_covered, "streams_covered": subscription.streams_covered}
    if source.types_origin is not TypesOrigin.CONFIG and subscription.types is not None:
        types = TypePatterns(subscription.types)
        changes |= {"types": types, "types_origin": TypesOrigin.SUBSCRIPTION}
        if source.types_origin is TypesOrigin.SUBSCRIPTION and types != source.types:
            changes["earlier_types"] = (*source.earlier_types, (now, source.types))
    if changes and source.name in sources:
        sources.change(source.name, **changes)


def recall(source: Source, history: Sequence[Mapping[str, Any]]) -> Source:
    """The source with what earlier processes read of its subscription (`ledger.sources.subscriptions`)."""
    book = Sources([source])
    for row in history:
        told = Subscription(
            healthy=row["healthy"],
            reason=row["reason"],
            types=None if row["types"] is None else tuple(json.loads(row["types"])),
            own_covered=row["own_covered"],
            streams_covered=row["streams_covered"],
        )
        learn(book, book[source.name], told, from_us(row["since_us"]))
    return book[source.name]


def _write(connection: Connection, now: datetime, source: Source, known: Known) -> list[str]:
    twins = [] if known.account is None else rows.note_account(connection, source.id, known.account.fingerprint)
    told = known.subscription
    rows.note_subscription(connection, source.id, told, now)
    if told is not None and told.types is not None and source.types_origin is not TypesOrigin.CONFIG:
        rows.note_types(connection, source.id, told.types, TypesOrigin.SUBSCRIPTION.value)
    return twins


async def stream_names(fetcher: Fetcher) -> list[str]:
    """The other streams that the account has, in the provider's order. Raises `ProviderError`s."""
    provider = fetcher.source.provider
    if not isinstance(provider, ListsStreams):
        return []
    request, names = provider.streams_request(), list[str]()
    while request is not None:
        page = provider.read_streams(request, await fetcher.send(request))
        names += page.streams
        request = page.next
    return names
