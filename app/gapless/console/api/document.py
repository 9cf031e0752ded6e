"""The API under `/api/v1` as one router, and its OpenAPI document."""

from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Litestar, Response, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from gapless.console.api import (
    actions,
    audit_log,
    events,
    hours,
    missed,
    passes,
    quarantine,
    receipts,
    reports,
    tokens,
    unrecoverable,
    untyped,
)
from gapless.console.api.problems import PREFIX, PROBLEM_JSON
from gapless.console.auth import Area
from gapless.console.routing import HEADERS, JSON, guarded, respond
from gapless.operations.context import OperationContext

ABOUT: Final = """The private API of Gapless: what the console and the commands show and do.

A token of the role viewer reads; the role operator also acts; a token that is limited to sources sees only these.
On loopback without a configured token, everybody on the machine may read. Times are RFC 3339 in UTC. null means that
something is not known or does not apply, never 0. Lists come a page at a time: take `next` as `cursor`, until it is
null. Errors are problem details (RFC 9457)."""
OPENAPI: Final = OpenAPIConfig(
    title="Gapless",
    version="1",
    description=ABOUT,
    use_handler_docstrings=True,
    security=[{"token": []}],
    components=Components(
        security_schemes={"token": SecurityScheme(type="http", scheme="bearer", description="`gapless token create`")}
    ),
)


def api_router(context: OperationContext) -> Router:
    """Return every route under `/api/v1`."""
    handlers: list[HTTPRouteHandler] = [document_route(), receipts.receipts_route(context)]
    for routes in (
        reports.report_routes,
        hours.hour_routes,
        events.event_routes,
        missed.missed_routes,
        passes.pass_routes,
        unrecoverable.unrecoverable_routes,
        quarantine.quarantine_routes,
        audit_log.audit_log_routes,
        tokens.token_routes,
        actions.action_routes,
    ):
        handlers += routes(context)
    return Router(PREFIX, route_handlers=handlers, after_request=_with_headers)


def document_route() -> HTTPRouteHandler:
    """`GET /api/v1/openapi.json`."""

    @get("/openapi.json", guards=[guarded(Area.READ)], include_in_schema=False)
    async def openapi() -> Response[bytes]:
        """Return the OpenAPI document of this API."""
        return respond(HTTPStatus.OK, encoded(), JSON)

    return openapi


def make_document() -> dict[str, Any]:
    """Return the OpenAPI document, without a server: it is the same everywhere."""
    context: Any = None
    app = Litestar(route_handlers=[api_router(context)], openapi_config=OPENAPI, logging_config=None)
    made = msgspec.json.decode(msgspec.json.encode(app.openapi_schema.to_schema()), type=dict[str, Any])
    made["paths"] |= untyped.described()
    return _with_shared_problems(made)


def _with_shared_problems(made: dict[str, Any]) -> dict[str, Any]:
    """Return the document with each kind of problem described once."""
    shared: dict[str, Any] = {}
    for path in made["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if PROBLEM_JSON in response.get("content", {}):
                    name = HTTPStatus(int(status)).phrase.replace(" ", "")
                    shared[name] = response
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    made["components"]["responses"] = dict(sorted(shared.items()))
    return made


@cache
def encoded() -> bytes:
    """Return the OpenAPI document as text, made once."""
    return msgspec.json.format(msgspec.json.encode(make_document()), indent=1) + b"\n"


def _with_headers(response: Response[Any]) -> Response[Any]:
    response.headers.update(HEADERS)
    return response
