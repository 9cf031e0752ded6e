"""`/api/v1/dead-letters` and `/api/v1/held`: deliveries that wait for a person, by filter."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from gapless.console.api.query import (
    PageQuery,
    Text,
    allowed_destinations,
    allowed_sources,
    read_query,
    respond_page,
)
from gapless.console.auth import Area
from gapless.console.routing import guarded, principal_of, respond_json
from gapless.domain import from_us, to_us
from gapless.ledger import unsettled
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.unsettled import Unsettled, UnsettledFilter
from gapless.operations.context import AwareTime, Name, OperationContext, OperationRefused
from gapless.operations.principals import Principal

PATHS: Final = {DeliveryState.DEAD: "/api/v1/dead-letters", DeliveryState.HELD: "/api/v1/held"}


class UnsettledQuery(PageQuery, frozen=True, kw_only=True):
    """Which deliveries. The times are those at which they died, or were held."""

    source: Name | None = None
    destination: Name | None = None
    type: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()
    """Event types or patterns such as `invoice.*`; may be there several times."""
    since: AwareTime | None = None
    until: AwareTime | None = None
    reason: Text | None = None
    object: Text | None = None


def dead_letter_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """`GET` of the lists, and of `…/count`."""
    return [route for state, path in PATHS.items() for route in _routes(context, state, path)]


def _routes(context: OperationContext, state: DeliveryState, path: str) -> list[HTTPRouteHandler]:
    @get(path, guards=[guarded(Area.READ)])
    async def list_unsettled(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return a page of deliveries, in the order in which their events were recorded."""
        query = read_query(request, UnsettledQuery)
        chosen = _chosen(query, state, principal_of(request))
        after = unsettled.START if query.cursor is None else unsettled.read_position(query.cursor)
        if after is None:
            raise OperationRefused("cursor is none that a page had as next")
        rows = await context.read(unsettled.page, chosen=chosen, after=after, limit=query.limit)
        return respond_page([as_values(row) for row in rows], rows[-1].position if len(rows) == query.limit else None)

    @get(f"{path}/count", guards=[guarded(Area.READ)])
    async def count_unsettled(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return how many there are, and when the first and the last came to be so."""
        chosen = _chosen(read_query(request, UnsettledQuery), state, principal_of(request))
        extent = await context.read(unsettled.extent, chosen=chosen)
        first, last = (None if us is None else from_us(us) for us in (extent.first_us, extent.last_us))
        return respond_json(HTTPStatus.OK, {"count": extent.count, "first": first, "last": last})

    return [list_unsettled, count_unsettled]


def _chosen(query: UnsettledQuery, state: DeliveryState, principal: Principal) -> UnsettledFilter:
    return UnsettledFilter(
        state=state,
        sources=allowed_sources(principal, query.source),
        destinations=allowed_destinations(principal, query.destination),
        types=query.type or None,
        since_us=None if query.since is None else to_us(query.since),
        until_us=None if query.until is None else to_us(query.until),
        reason=query.reason,
        object_key=query.object,
    )


def as_values(row: Unsettled) -> dict[str, object]:
    """Return a delivery for JSON."""
    return {
        "source": row.source,
        "key": row.key,
        "type": row.type,
        "object": row.object_key,
        "occurred": from_us(row.occurred_us),
        "destination": row.destination,
        "state": row.state.value,
        "reason": row.reason,
        "attempts": row.attempts,
        "since": from_us(row.done_us),
    }
