"""`POST /api/operations/<name>`: performs an operation."""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gapless.console.auth import Area
from gapless.console.routing import JSON, ConsoleOptions, guarded, respond_json
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform


def operations_route(options: ConsoleOptions, context: OperationContext) -> HTTPRouteHandler:
    """`POST /api/operations/<name>`."""

    @post("/api/operations/{name:str}", status_code=200, guards=[guarded(options.access, Area.WRITE)])
    async def operation(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Perform the operation with the JSON object of the body."""
        args = _read_object(request.headers.get("content-type", ""), await request.body())
        return respond_json(HTTPStatus.OK, await perform(context, request.path_params["name"], args))

    return operation


def _read_object(content_type: str, body: bytes) -> dict[str, object]:
    """Return the JSON object in the body. Its content type is required because forms of other sites cannot send it."""
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise HTTPException(status_code=415, detail=f"content-type is {content_type!r}; wanted {JSON}")
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, object])
    except msgspec.DecodeError as error:
        raise OperationRefused(f"the body is not a JSON object: {error}") from error
