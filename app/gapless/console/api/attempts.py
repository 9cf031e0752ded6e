"""`GET /api/v1/attempts`: the attempts to deliver one event, and what was answered."""

from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from gapless.console.api.query import (
    PageQuery,
    Text,
    allowed_destinations,
    allowed_sources,
    read_number,
    read_query,
    respond_page,
)
from gapless.console.auth import Area
from gapless.console.routing import guarded, principal_of
from gapless.operations import attempts
from gapless.operations.context import Name, OperationContext


class AttemptsQuery(PageQuery, frozen=True, kw_only=True):
    """The event, by the vendor's own key."""

    source: Name
    key: Text
    destination: Name | None = None


def attempts_route(context: OperationContext) -> HTTPRouteHandler:
    """`GET /api/v1/attempts?source=…&key=…`."""

    @get("/api/v1/attempts", guards=[guarded(Area.READ)])
    async def list_attempts(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the attempts of the event, oldest first; none, if it is not in the ledger."""
        query, principal = read_query(request, AttemptsQuery), principal_of(request)
        allowed_sources(principal, query.source)
        shown = allowed_destinations(principal, query.destination)
        after = read_number(query.cursor) or 0
        found = await context.read(
            attempts.of_key, query.key, query.source, destination=query.destination, after_id=after, limit=query.limit
        )
        mask = context.sources[query.source].mask if query.source in context.sources else ()
        rows = [(each, payload) for _, payload, tried in found for each in tried]
        own = [row for row in rows if shown is None or row[0].destination in shown]
        items = [attempts.as_values(each, payload, mask) for each, payload in own]
        return respond_page(items, str(rows[-1][0].id) if len(rows) == query.limit else None)

    return list_attempts
