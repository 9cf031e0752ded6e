"""`POST /api/operations/<name>`: performs an operation."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from gapless.console.auth import Area
from gapless.console.routing import guarded, perform_for, read_object, respond_json
from gapless.operations.context import OperationContext


def operations_route(context: OperationContext) -> HTTPRouteHandler:
    """`POST /api/operations/<name>`."""

    @post("/api/operations/{name:str}", status_code=200, guards=[guarded(Area.WRITE)])
    async def operation(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Perform the operation with the JSON object of the body."""
        args = read_object(request.headers.get("content-type", ""), await request.body())
        return respond_json(HTTPStatus.OK, await perform_for(request, context, request.path_params["name"], args))

    return operation
