"""Releases refused webhooks: reads them again after the cause of their refusal was corrected."""

from gapless.domain import Source
from gapless.ledger import quarantine as ledger
from gapless.operations.context import Name, OperationContext, OperationRefused, OperationRequest
from gapless.receive.quarantine import Released, StillRefused, release_webhook

REFUSALS_SHOWN = 20


class ReleaseQuarantined(OperationRequest, frozen=True, kw_only=True):
    """Read refused webhooks again with the current secrets: one of them, or all of a source."""

    operation = "quarantine.release"
    id: int | None = None
    source: Name | None = None


async def release_quarantined(context: OperationContext, request: ReleaseQuarantined) -> dict[str, object]:
    """Read refused webhooks again; those that still do not verify stay, and are returned with the reason."""
    if (request.id is None) == (request.source is None):
        raise OperationRefused("quarantine.release needs either id or source; it got both or neither")
    ids = [request.id] if request.id is not None else await _quarantined(context, context.source(request.source or ""))
    released, new, refused = 0, 0, list[dict[str, object]]()
    for quarantine_id in ids:
        outcome = await _release(context, quarantine_id)
        if isinstance(outcome, Released):
            released, new = released + 1, new + outcome.new
        else:
            refused.append({"id": quarantine_id, "reason": outcome.reason, "detail": outcome.detail})
    result: dict[str, object] = {"released": released, "new": new, "refused": len(refused)}
    if released:
        await context.write(request.operation, request.source or str(request.id), lambda _: result)
    return result | {"first_refused": refused[:REFUSALS_SHOWN]}


async def _release(context: OperationContext, quarantine_id: int) -> Released | StillRefused:
    return await release_webhook(
        quarantine_id, runtime=context.runtime, stream_ids=context.stream_ids, evidence=context.evidence
    )


def _is_whole(entry: ledger.QuarantineEntry) -> bool:
    return entry.released_us is None and entry.purged_us is None and entry.reason not in ledger.PARTIAL


async def _quarantined(context: OperationContext, source: Source) -> list[int]:
    """Return the ids of all whole webhooks of the source that were not released yet, oldest first."""
    ids, after = list[int](), 0
    while found := await context.read(ledger.entries, source_id=source.id, after_id=after, limit=1000):
        ids += [entry.id for entry in found if _is_whole(entry)]
        after = found[-1].id
    return ids
