"""`GET /api/status`: the report with its troubles."""

from datetime import datetime
from http import HTTPStatus
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from gapless.console.auth import Area
from gapless.console.routing import ConsoleOptions, guarded, make_report, principal_of, respond_json
from gapless.operations.context import OperationContext
from gapless.status import values


def status_route(options: ConsoleOptions, context: OperationContext) -> HTTPRouteHandler:
    """`GET /api/status`."""

    @get("/api/status", guards=[guarded(Area.READ)])
    async def status_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the report with its troubles, and facts about this process."""
        report = await make_report(context, principal_of(request))
        return respond_json(HTTPStatus.OK, {"process": _process(options, report.at), **values.of_report(report)})

    return status_page


def _process(options: ConsoleOptions, now: datetime) -> dict[str, object]:
    return {
        "version": options.version,
        "roles": sorted(options.roles),
        "started_at": options.started_at,
        "uptime_s": (now - options.started_at).total_seconds(),
    }
