"""Dismisses rows of a list that cannot be read."""

from typing import Annotated

from msgspec import Meta

from gapless.ledger import Connection, unreadable
from gapless.ledger import sources as ledger
from gapless.operations.context import Keys, Name, OperationContext, OperationRefused, OperationRequest


class DismissMissing(OperationRequest, frozen=True, kw_only=True):
    """Dismiss the unreadable rows of these keys, with the reason."""

    operation = "missing.dismiss"
    explained_by = "reason"
    source: Name
    keys: Keys
    reason: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


async def dismiss(context: OperationContext, request: DismissMissing) -> dict[str, object]:
    """Dismiss the rows: they are not reported again, also if the list goes on showing them.

    The time in which each occurred becomes unrecoverable, acknowledged for this reason.
    """
    return await context.write(request.operation, request.source, _dismiss, context=context, request=request)


def _dismiss(connection: Connection, context: OperationContext, request: DismissMissing) -> dict[str, object]:
    row = ledger.source_named(connection, request.source)
    if row is None:
        raise OperationRefused(
            f"source {request.source!r} is not in the ledger; `gapless source list` shows all sources"
        )
    dismissed = unreadable.dismiss(
        connection, row["id"], request.keys, by=context.actor, reason=request.reason, now_us=context.now_us
    )
    others = sorted(set(request.keys) - set(dismissed))
    if others:
        raise OperationRefused(
            f"source {request.source!r} has no open unreadable row {others[0]!r}; `gapless missing list --source "
            f"{request.source}` shows those it has; nothing was dismissed"
        )
    return {"dismissed": dismissed, "reason": request.reason}
