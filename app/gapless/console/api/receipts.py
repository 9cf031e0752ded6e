"""`POST /api/v1/receipts`: a handler reports what it has processed."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from gapless.console.auth import Area
from gapless.console.routing import guarded, perform_for, read_object, respond_json
from gapless.operations.context import OperationContext
from gapless.operations.imports import RecordReceipts


def receipts_route(context: OperationContext) -> HTTPRouteHandler:
    """`POST /api/v1/receipts`."""

    @post("/api/v1/receipts", status_code=200, guards=[guarded(Area.RECEIPTS)])
    async def receipts(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Record `{"destination", "source", "keys"}`; return how many receipts are new and how many were known."""
        args = read_object(request.headers.get("content-type", ""), await request.body())
        return respond_json(HTTPStatus.OK, await perform_for(request, context, RecordReceipts.operation, args))

    return receipts
