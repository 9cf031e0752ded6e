"""`/api/v1/dead-letters`: deliveries that ran out of attempts or were refused for good, and held ones."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from gapless.console.api import cursors
from gapless.console.api.events import read_types
from gapless.console.api.shared import (
    PAGE,
    After,
    AnyRequest,
    Limit,
    OfSource,
    Since,
    Until,
    reading,
    refuse,
    refuse_limited,
    time_us,
)
from gapless.domain import from_us
from gapless.ledger import Connection, destinations, unsettled
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.unsettled import Key, Unsettled, UnsettledFilter
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
        its: Annotated[Waiting, QueryParameter(name="state", description="Dead, or held.")] = Waiting.DEAD,
        destination: Annotated[str | None, QueryParameter(max_length=40, description="Only to it.")] = None,
        source: OfSource = None,
        types: Annotated[str | None, QueryParameter(name="type", max_length=500, description="`invoice.*`")] = None,
        of: Annotated[str | None, QueryParameter(name="object", max_length=500, description="Its key.")] = None,
        reason: Annotated[str | None, QueryParameter(max_length=60, description="Such as `consumer_4xx`.")] = None,
        since: Since = None,
        until: Until = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> DeadLettersPage:
        """List dead letters, or held deliveries. `dead.requeue` and `held.release` send them again.

        `since` and `until` are about when they became so.
        """
        refuse_limited(request, "dead letters")
        chosen = UnsettledFilter(
            state=DeliveryState(its.value),
            destinations=None if destination is None else (destination,),
            sources=None if source is None else (source,),
            types=read_types(types),
            object_key=None if of is None else of.replace("\0", ""),
            reason=None if reason is None else reason.replace("\0", ""),
            since_us=time_us(context, "since", since),
            until_us=time_us(context, "until", until),
        )
        return await find_waiting(context, chosen, after, limit)

    return [list_dead_letters]


async def find_waiting(
    context: OperationContext, chosen: UnsettledFilter, after: str | None, limit: int
) -> DeadLettersPage:
    """Return a page. Raises `HTTPException` and `StoreError`."""
    place = cursors.decode(NOUN, after, length=2)
    start = unsettled.START if place is None else (place[0], place[1])
    rows = await context.read(_page, chosen=chosen, after=start, limit=limit + 1)
    if rows is None:
        refuse(f"destination {listed(chosen.destinations)} is not known; /api/v1/destinations has those that are")
    last = rows[limit - 1] if len(rows) > limit else None
    return DeadLettersPage(
        items=[_item(each) for each in rows[:limit]],
        next=cursors.encode(NOUN, None if last is None else (last.seq, last.destination_id)),
    )


def listed(names: tuple[str, ...] | None) -> str:
    """Return names for a message."""
    return ", ".join(map(repr, names or ()))


def _page(connection: Connection, chosen: UnsettledFilter, after: Key, limit: int) -> list[Unsettled] | None:
    """Return some deliveries; None: a destination is not known."""
    if any(destinations.destination(connection, each) is None for each in chosen.destinations or ()):
        return None
    return unsettled.page(connection, chosen, after=after, limit=limit)


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
