"""What the provider says of our key and our endpoint: whose account, which types, which streams.

Read at start, once an hour and when a credential changes. What cannot be read is unknown, never wrong.
"""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gapless.domain import Source, Sources, TypePatterns, TypesOrigin
from gapless.ledger import Connection
from gapless.ledger import sources as rows
from gapless.reconcile.fetch import Fetcher
from gapless.reconcile.road import Claim
from gapless_reconcilers.kit.contract import Account, ListsStreams, ReadsAccount, ReadsSubscription, Subscription
from gapless_reconcilers.kit.errors import CredentialsRejected, NeedsOperator, OptionsInvalid, UnexpectedShape

log = logging.getLogger(__name__)


class AccountShared(NeedsOperator):
    """Another source reads the same account, so that each event would be counted twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the provider told; None where it did not, or may not."""

    account: Account | None = None
    subscription: Subscription | None = None


async def ask(fetcher: Fetcher, webhook_url: str) -> Known:
    """Ask whose account it is and how our endpoint stands.

    A permission that the key lacks leaves its answer unknown. Raises `Retryable` and `UnexpectedShape`.
    """
    provider = fetcher.source.provider
    account = subscription = None
    try:
        if isinstance(provider, ReadsAccount):
            account = provider.read_account(await fetcher.send(provider.account_request()))
    except (CredentialsRejected, OptionsInvalid) as error:
        log.info("account_unknown", extra={"source": fetcher.source.name, "error": str(error)})
    try:
        if isinstance(provider, ReadsSubscription):
            response = await fetcher.send(provider.subscription_request())
            subscription = provider.read_subscription(response, webhook_url)
    except (CredentialsRejected, OptionsInvalid, UnexpectedShape) as error:
        log.info("subscription_unknown", extra={"source": fetcher.source.name, "error": str(error)})
    return Known(account=account, subscription=subscription)


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
        learn(sources, source, known.subscription)


def learn(sources: Sources, source: Source, subscription: Subscription) -> None:
    """Let the source expect what the subscription names, unless the configuration already says it."""
    changes: dict[str, object] = {}
    if subscription.healthy:
        changes["streams_covered"] = subscription.streams_covered
    if source.types_origin is not TypesOrigin.CONFIG and subscription.types is not None:
        changes |= {"types": TypePatterns(subscription.types), "types_origin": TypesOrigin.SUBSCRIPTION}
    if changes and source.name in sources:
        sources.change(source.name, **changes)


def recall(source: Source, types: str | None, origin: str) -> Source:
    """The source with the types that an earlier process read from its subscription (JSON)."""
    if source.types_origin is not TypesOrigin.ASSUMED or origin != TypesOrigin.SUBSCRIPTION.value or types is None:
        return source
    book = Sources([source])
    return book.change(source.name, types=TypePatterns(json.loads(types)), types_origin=TypesOrigin.SUBSCRIPTION)


def _write(connection: Connection, now: datetime, source: Source, known: Known) -> list[str]:
    twins = [] if known.account is None else rows.note_account(connection, source.id, known.account.fingerprint)
    told = known.subscription
    healthy, reason = (None, "the read key may not read it") if told is None else (told.healthy, told.reason)
    rows.note_subscription(connection, source.id, healthy=healthy, reason=reason, now=now)
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
