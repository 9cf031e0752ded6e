"""Missing rows: events that are known to exist, fetched one by one on their own schedule."""

import logging
from datetime import timedelta
from functools import partial

from gapless.domain import Via, from_us, span_us, to_us
from gapless.ledger import Connection, missing
from gapless.ledger.engine import BadData
from gapless.ledger.missing import Missing
from gapless.ledger.recorder import Sighting
from gapless.ledger.sources import stream_name
from gapless.reconcile.road import Claim
from gapless_reconcilers.kit.contract import FetchesDetail, RemoteEvent
from gapless_reconcilers.kit.errors import CredentialsRejected, OptionsInvalid, ProviderError

log = logging.getLogger(__name__)
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=6)
AT_ONCE = 50
"""Missing rows that one turn of a source tries."""


def wait_after(attempts: int) -> timedelta:
    """How long to wait after that many failed attempts."""
    return min(FIRST_WAIT * (1 << min(attempts, 20)), LONGEST_WAIT)


async def recover_missing(claim: Claim) -> list[ProviderError]:
    """Try the missing rows that are due; returns the errors that concern the source rather than one event."""
    source = claim.source
    now_us = to_us(claim.road.clock())
    query = partial(missing.due, source_id=source.id, now_us=now_us, limit=AT_ONCE)
    for row in await claim.road.read(query):
        try:
            await _recover(claim, row)
        except CredentialsRejected as error:
            return [error]
        except ProviderError as error:
            await _postpone(claim, row, f"{type(error).__name__}: {error}")
    return []


async def _recover(claim: Claim, row: Missing) -> None:
    provider = claim.source.provider
    if not isinstance(provider, FetchesDetail):
        await _postpone(claim, row, f"provider {provider.kind!r} cannot fetch a single event")
        return
    stream = await claim.road.read(partial(stream_name, stream_id=row.stream_id))
    try:
        event = provider.read_detail(await claim.fetcher.send(provider.detail_request(row.key, stream)), stream)
    except OptionsInvalid as error:  # 404, 410: the provider no longer has it
        await claim.write(partial(missing.give_up, row=row, error=str(error)))
        log.warning("event_lost", extra={"source": claim.source.name, "event_key": row.key, "error": str(error)})
        return
    try:
        await claim.write(partial(_store, claim=claim, sighting=_sighting(claim, row, event)))
    except BadData as error:
        await _postpone(claim, row, str(error))


def _sighting(claim: Claim, row: Missing, event: RemoteEvent) -> Sighting:
    return Sighting(
        source=claim.source,
        stream_id=row.stream_id,
        event=event,
        via=Via.LIST,
        seen_us=to_us(claim.road.clock()),
        cause=row.cause,
    )


def _store(connection: Connection, claim: Claim, sighting: Sighting) -> None:
    claim.road.writer.recorder.store(connection, [sighting])


async def _postpone(claim: Claim, row: Missing, error: str) -> None:
    next_us = to_us(claim.road.clock()) + span_us(wait_after(row.attempts))
    log.warning("event_still_missing", extra={"event_key": row.key, "error": error, "next": str(from_us(next_us))})
    await claim.write(partial(missing.postpone, row=row, next_attempt_us=next_us, error=error))
