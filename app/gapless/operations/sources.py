"""What can be done with a source's row: another name for it."""

from functools import partial

from gapless.ledger import Connection
from gapless.ledger import sources as ledger
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.request import Name, OperationRequest


class RenameSource(OperationRequest, frozen=True, kw_only=True):
    """Give a source another name."""

    operation = "source.rename"
    old: Name
    new: Name


async def rename(context: OperationContext, request: RenameSource) -> dict[str, object]:
    """Give a source's row another name; all that was recorded stays with it."""
    if request.old == request.new:
        raise OperationRefused(f"source {request.old!r} has that name already")
    await context.write(request.operation, request.old, partial(_rename, request=request))
    advice = "write the new name into the configuration and restart; until then no pass is made of this source"
    return {"old": request.old, "new": request.new, "next": advice}


def _rename(connection: Connection, request: RenameSource) -> dict[str, str]:
    if ledger.source_named(connection, request.old) is None:
        raise OperationRefused(
            f"source {request.old!r} is not in the ledger; `gapless source list` shows those that are"
        )
    if not ledger.rename(connection, request.old, request.new):
        raise OperationRefused(f"source {request.new!r} exists already; choose another name")
    return {"new": request.new}
