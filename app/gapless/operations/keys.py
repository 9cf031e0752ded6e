"""Seals payloads with the current key, while everything else goes on."""

from functools import partial
from typing import Annotated, Final

from msgspec import Meta

from gapless.ledger import resealing
from gapless.ledger.resealing import Resealed
from gapless.ledger.sealed import TABLES
from gapless.operations.context import OperationContext, OperationRefused, OperationRequest
from gapless.operations.principals import AccessRole

BATCHES: Final = 20
"""Batches of one request, so that whoever waits for it sees progress."""


class RotateKeys(OperationRequest, frozen=True, kw_only=True):
    """Seal the rows of one table that need one key with the current one, from `after` on; "clear" is no key.

    Without a table: return which tables and keys there are to go through.
    """

    operation = "keys.rotate"
    needs = AccessRole.OWNER
    table: str | None = None
    key: str | None = None
    after: Annotated[int, Meta(ge=0)] = 0


async def rotate(context: OperationContext, request: RotateKeys) -> dict[str, object]:
    """Go on with the rotation; `after` None in the result: the table has no such rows any more."""
    if (blocked := context.runtime.keyring.state.blocked) != "":
        raise OperationRefused(f"nothing can be sealed: {blocked}")
    if request.table is None or request.key is None:
        leave = await context.read(resealing.keys_to_leave)
        return {"steps": [{"table": table, "key": key} for key in leave for table in TABLES]}
    if request.table not in TABLES:
        raise OperationRefused(f"table is {request.table!r}; wanted one of {', '.join(TABLES)}")
    current = context.runtime.keyring.current
    if request.key == (None if current is None else current.id):
        raise OperationRefused(f"{request.key!r} is the current key: its rows stay as they are")
    count = broken = 0
    after: int | None = request.after
    for _ in range(BATCHES):
        work = partial(resealing.reseal, name=request.table, key_id=request.key, after=after or 0)
        done: Resealed = await context.runtime.writer.submit_idle(work)
        count, broken, after = count + done.count, broken + done.broken, done.after
        if after is None:
            break
    if count:
        sealed_by = "clear" if current is None else current.id
        result = {"table": request.table, "from": request.key, "to": sealed_by, "rows": count}
        await context.write(request.operation, request.table, lambda _: result)
    return {"count": count, "broken": broken, "after": after}
