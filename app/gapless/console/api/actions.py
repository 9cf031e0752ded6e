"""`POST /api/v1/operations/<name>`: each operation by its own path, with what it takes.

A request may carry the header `Idempotency-Key`. If the same caller sends it again within a day, the answer is that of
the first request, and nothing is done twice.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.params import BodyKwarg, HeaderParameter

from gapless.console.api.problems import OF_WRITES
from gapless.console.api.shared import AnyRequest, json_only, refuse
from gapless.console.auth import Area
from gapless.console.routing import guarded, perform_for, principal_of
from gapless.ledger import performed
from gapless.ledger.performed import Performed
from gapless.operations.context import ApprovalNeeded, OperationContext, OperationForbidden, OperationRefused
from gapless.operations.registry import OPERATIONS

Key = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Sent again within a day, it gets the first answer, and nothing is done twice.",
    ),
]
UNCHANGED: Final = (OperationRefused, OperationForbidden, ApprovalNeeded)
"""Errors after which nothing was changed."""


def action_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return a route for each operation."""
    return [_route(context, name) for name in sorted(OPERATIONS)]


def _route(context: OperationContext, name: str) -> HTTPRouteHandler:
    takes: Any = OPERATIONS[name].request

    async def operation(request: AnyRequest, data: Any, key: Key = None) -> dict[str, Any]:
        args = msgspec.to_builtins(data)
        if key is None:
            return await perform_for(request, context, name, args)
        return await perform_once(request, context, name, args, key)

    operation.__annotations__["data"] = Annotated[takes, BodyKwarg()]
    operation.__name__ = name.replace(".", "_")
    operation.__doc__ = takes.__doc__
    guards = [guarded(Area.WRITE), json_only]
    return post(
        f"/operations/{name}",
        status_code=HTTPStatus.OK,
        guards=guards,
        responses=OF_WRITES,
        tags=["operations"],
        summary=name,
        operation_id=name,
    )(operation)


async def perform_once(
    request: AnyRequest, context: OperationContext, name: str, args: Mapping[str, object], key: str
) -> dict[str, Any]:
    """Perform the operation, unless this caller has asked for it with this key; then return the first result.

    A result that is shown once is not kept: the second request gets 409.
    """
    digest = performed.digest_of(principal_of(request).name, key)
    asked = performed.digest_of(name, msgspec.json.encode(dict(sorted(args.items()))).decode())
    runtime = context.runtime
    before = await runtime.write(performed.take, digest, asked, context.now_us)
    if before is not None:
        return _first_result(before, asked)
    try:
        result = await perform_for(request, context, name, args)
    except UNCHANGED:
        await runtime.write(performed.give_back, digest)
        raise
    if not OPERATIONS[name].request.is_shown_once:
        await runtime.write(performed.finish, digest, msgspec.json.encode(result).decode())
    return result


def _first_result(before: Performed, asked: str) -> dict[str, Any]:
    if before.asked != asked:
        refuse("this Idempotency-Key was used for another request; make a new one", HTTPStatus.CONFLICT)
    if before.result is None:
        detail = (
            "the request with this Idempotency-Key is under way, its process has ended, or its answer is shown once "
            "only; the audit log tells"
        )
        refuse(detail, HTTPStatus.CONFLICT)
    return msgspec.json.decode(before.result, type=dict[str, Any])
