"""Tells the ledger that it was restored from a backup, or lost its newest rows at a failover."""

from gapless.domain import Mode, Source, to_us
from gapless.ledger import backlogs, dead_letters, restored
from gapless.operations.context import AwareTime, OperationContext, OperationRefused, OperationRequest
from gapless_reconcilers.kit.contract import Coverage, Reading


class NoteRestored(OperationRequest, frozen=True, kw_only=True):
    """The ledger lacks what was recorded from `since`, the time of the backup, until now."""

    operation = "db.restored"
    since: AwareTime


async def note_restored(context: OperationContext, request: NoteRestored) -> dict[str, object]:
    """Note the interval, and hold every delivery that may have been made in it.

    What the list shows of the interval is recorded and is neither expected nor missed; its deliveries are held. Of a
    source that lists nothing, the interval is unrecoverable. Deliveries that were pending in the backup are held too.
    """
    now_us = context.now_us
    if to_us(request.since) >= now_us:
        raise OperationRefused(f"the backup is of {request.since.isoformat()}, which is yet to come; give its time")
    unlisted = {source.id for source in context.sources if not can_fill(source)}
    streams = await context.write(
        request.operation, "ledger", restored.note, since_us=to_us(request.since), now_us=now_us, unlisted=unlisted
    )
    await context.runtime.write(backlogs.recount)
    held = 0
    while count := await context.write(
        request.operation, "deliveries", dead_letters.hold_pending, reason=restored.REASON
    ):
        held += count
    return {"streams": streams, "held": held, "unlisted": sorted(s.name for s in context.sources if s.id in unlisted)}


def can_fill(source: Source) -> bool:
    """Return True if the source's list still shows what the ledger has lost."""
    known = source.provider.capabilities
    forgets = known.coverage is Coverage.NONE or known.reading is Reading.CONSUME
    return source.mode is not Mode.WEBHOOK and not forgets
