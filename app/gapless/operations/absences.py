"""Accepts that a provider's list lacks events whose webhooks came."""

from typing import Annotated

from msgspec import Meta

from gapless.ledger import Connection, sources
from gapless.ledger import absences as ledger
from gapless.operations.context import Keys, Name, OperationContext, OperationRefused, OperationRequest


class AcceptUnlisted(OperationRequest, frozen=True, kw_only=True):
    """Accept that the list lacks these events, so that they no longer hold the watermark."""

    operation = "event.accept_unlisted"
    explained_by = "reason"
    source: Name
    keys: Keys
    reason: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


async def accept_unlisted(context: OperationContext, request: AcceptUnlisted) -> dict[str, object]:
    """Accept the absence of the events, all of them or none, and make the source due: a pass moves the watermark.

    They stay recorded, delivered and counted as unlisted.
    """
    return await context.write(request.operation, request.source, _accept, now_us=context.now_us, request=request)


def _accept(connection: Connection, now_us: int, request: AcceptUnlisted) -> dict[str, object]:
    row = sources.source_named(connection, request.source)
    if row is None:
        raise OperationRefused(
            f"source {request.source!r} is not in the ledger; `gapless source list` shows all sources"
        )
    accepted = ledger.accept(connection, row["id"], request.keys)
    unknown = sorted({*request.keys} - {*accepted})
    if unknown:
        raise OperationRefused(
            f"the list of source {request.source!r} does not lack {', '.join(unknown[:10])}; "
            "`gapless status` names the events that it lacks; nothing was accepted"
        )
    sources.make_due_now(connection, row["id"], now_us)
    return {"accepted": accepted, "reason": request.reason}
