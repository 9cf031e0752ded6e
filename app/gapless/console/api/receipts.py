"""`POST /api/v1/receipts`: a handler reports what it has processed."""

from typing import Any

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from gapless.console.api.problems import OF_WRITES
from gapless.console.api.shared import AnyRequest, json_only
from gapless.console.auth import Area
from gapless.console.routing import guarded, perform_for
from gapless.operations.context import OperationContext
from gapless.operations.imports import RecordReceipts


def receipts_route(context: OperationContext) -> HTTPRouteHandler:
    """`POST /api/v1/receipts`."""

    @post(
        "/receipts", status_code=200, guards=[guarded(Area.RECEIPTS), json_only], responses=OF_WRITES, tags=["receipts"]
    )
    async def receipts(request: AnyRequest, data: JSONBody[RecordReceipts]) -> dict[str, Any]:
        """Record that a handler has processed events; return how many receipts are new and how many were known."""
        return await perform_for(request, context, RecordReceipts.operation, msgspec.to_builtins(data))

    return receipts
