"""`/api/v1/dead-letters`: deliveries that ran out of attempts or were refused for good, and held ones."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from gapless.console.api import cursors
from gapless.console.api.shared import PAGE, After, AnyRequest, Limit, reading, refuse, refuse_limited
from gapless.domain import from_us
from gapless.ledger import Connection, dead_letters, destinations
from gapless.ledger.dead_letters import Unsettled
from gapless.ledger.deliveries import DeliveryState
from gapless.operations.context import OperationContext

NOUN = "dead-letters"


class Waiting(StrEnum):
    """The state of a delivery that waits for a person."""

    DEAD = "dead"
    HELD = "held"


class DeadLetterItem(Struct, frozen=True, kw_only=True):
    """A delivery that waits for a person."""

    destination: str
    source: str
    key: str
    type: str
    occurred: datetime
    state: str
    reason: str | None
    attempts: int
    since: datetime


class DeadLettersPage(Struct, frozen=True, kw_only=True):
    """A page of deliveries, in the order in which their events were recorded."""

    items: list[DeadLetterItem]
    next: str | None


def dead_letter_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/dead-letters", tag="dead letters")
    async def list_dead_letters(
        request: AnyRequest,
        *,
        its: Annotated[
            Waiting, QueryParameter(name="state", description="Dead letters, or held deliveries.")
        ] = Waiting.DEAD,
        destination: Annotated[str | None, QueryParameter(max_length=40, description="Only to it.")] = None,
        reason: Annotated[str | None, QueryParameter(max_length=60, description="Such as `consumer_4xx`.")] = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> DeadLettersPage:
        """List dead letters, or held deliveries. `dead.requeue` and `held.release` send them again."""
        refuse_limited(request, "dead letters")
        return await find_waiting(context, its, destination, reason, after, limit)

    return [list_dead_letters]


async def find_waiting(
    context: OperationContext,
    state: Waiting,
    destination: str | None,
    reason: str | None,
    after: str | None,
    limit: int,
) -> DeadLettersPage:
    """Return a page. Raises `HTTPException` and `StoreError`."""
    place = cursors.decode(NOUN, after, length=2)
    found = await context.read(
        _page,
        state=DeliveryState(state.value),
        destination=destination,
        reason=None if reason is None else reason.replace("\0", ""),
        after=(0, 0) if place is None else (place[0], place[1]),
        limit=limit,
    )
    if found is None:
        refuse(f"destination {destination!r} is not known; /api/v1/destinations has those that are")
    rows, last = found
    return DeadLettersPage(items=[_item(each) for each in rows], next=cursors.encode(NOUN, last))


def _page(
    connection: Connection,
    state: DeliveryState,
    destination: str | None,
    reason: str | None,
    after: tuple[int, int],
    limit: int,
) -> tuple[list[Unsettled], tuple[int, int] | None] | None:
    """Return some deliveries and where the next page goes on; None: the destination is not known."""
    known = None if destination is None else destinations.destination(connection, destination)
    if destination is not None and known is None:
        return None
    chosen = None if known is None else known.id
    rows = dead_letters.waiting(connection, state, destination_id=chosen, reason=reason, after=after, limit=limit + 1)
    if len(rows) <= limit:
        return rows, None
    last = destinations.destination(connection, rows[limit - 1].destination)
    return rows[:limit], None if last is None else (rows[limit - 1].seq, last.id)


def _item(row: Unsettled) -> DeadLetterItem:
    return DeadLetterItem(
        destination=row.destination,
        source=row.source,
        key=row.key,
        type=row.type,
        occurred=from_us(row.occurred_us),
        state=row.state.value,
        reason=row.reason,
        attempts=row.attempts,
        since=from_us(row.done_us),
    )
