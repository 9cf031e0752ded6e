"""The routes of `/api/v1` that change something: each performs an operation with the JSON object of its body."""

from http import HTTPStatus
from typing import Any, Final

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from gapless.console.api.query import read_number
from gapless.console.auth import Area
from gapless.console.routing import guarded, perform_for, read_object, respond_json
from gapless.operations.context import OperationContext
from gapless.operations.deliveries import (
    DiscardDeadLetters,
    DiscardHeld,
    ReleaseHeld,
    ReplayEvents,
    RequeueDeadLetters,
)
from gapless.operations.jobs import CancelJobs

OPERATIONS: Final = {
    "/api/v1/events/replay": ReplayEvents.operation,
    "/api/v1/dead-letters/requeue": RequeueDeadLetters.operation,
    "/api/v1/dead-letters/discard": DiscardDeadLetters.operation,
    "/api/v1/held/release": ReleaseHeld.operation,
    "/api/v1/held/discard": DiscardHeld.operation,
}
"""The operation of each route. What it answers with `job` goes on after the answer."""


def change_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """`POST` of each path of `OPERATIONS`, and `POST /api/v1/jobs/<id>/cancel`."""

    @post("/api/v1/jobs/{job_id:str}/cancel", status_code=200, guards=[guarded(Area.WRITE)])
    async def cancel_job(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Cancel a job; the body may have a `note`."""
        args = read_object(request.headers.get("content-type", ""), await request.body())
        named = {**args, "ids": [read_number(request.path_params["job_id"])]}
        return respond_json(HTTPStatus.OK, await perform_for(request, context, CancelJobs.operation, named))

    return [cancel_job, *(_route(context, path, name) for path, name in OPERATIONS.items())]


def _route(context: OperationContext, path: str, name: str) -> HTTPRouteHandler:
    @post(path, status_code=200, guards=[guarded(Area.WRITE)])
    async def change(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Perform the operation."""
        args = read_object(request.headers.get("content-type", ""), await request.body())
        return respond_json(HTTPStatus.OK, await perform_for(request, context, name, args))

    return change
