"""Probes: is the process alive, and is the store there."""

import asyncio
from http import HTTPStatus
from typing import Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from gapless.console.auth import Area
from gapless.console.guard import ConsoleOptions, guarded
from gapless.console.responses import respond_text
from gapless.ledger.engine import StoreError
from gapless.operations.context import OperationContext

READY_WITHIN_S: Final = 5.0


def livez_route(options: ConsoleOptions, context: OperationContext) -> HTTPRouteHandler:
    """`GET /livez`."""

    @get("/livez", guards=[guarded(options.access, Area.PROBE)])
    async def livez() -> Response[bytes]:
        """200 while the event loop answers and the writer is not stuck: else only a restart helps."""
        return respond_text(*_state(context.runtime.writer.is_alive, "the writer does not commit"))

    return livez


def readyz_route(options: ConsoleOptions, context: OperationContext) -> HTTPRouteHandler:
    """`GET /readyz`."""

    @get("/readyz", guards=[guarded(options.access, Area.PROBE)])
    async def readyz() -> Response[bytes]:
        """200 if the store answers and has the schema of this release."""
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                current = await context.read(options.schema_is_current)
        except (StoreError, TimeoutError):
            return respond_text(HTTPStatus.SERVICE_UNAVAILABLE, "the store does not answer")
        return respond_text(*_state(current, "the schema is not the one of this release; run `gapless db upgrade`"))

    return readyz


def _state(good: bool, otherwise: str) -> tuple[HTTPStatus, str]:  # noqa: FBT001 - it is the whole question
    return (HTTPStatus.OK, "ok") if good else (HTTPStatus.SERVICE_UNAVAILABLE, otherwise)
