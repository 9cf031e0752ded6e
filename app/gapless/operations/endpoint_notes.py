"""Writes into the audit log what a command does at a provider, where it cannot be written with the action itself."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from gapless.ledger import Connection
from gapless.operations.context import Name, OperationContext, OperationRequest


class EndpointAction(StrEnum):
    """An action on our endpoint at a provider."""

    REGISTER = "source.register"
    REPAIR = "source.repair"


class NoteEndpoint(OperationRequest, frozen=True, kw_only=True):
    """Note that an action on our endpoint is about to be made, or what came of it."""

    operation = "endpoint.note"
    source: Name
    action: EndpointAction
    detail: Annotated[str, Meta(min_length=1, max_length=1000)]


async def note_endpoint(context: OperationContext, request: NoteEndpoint) -> dict[str, object]:
    """Write the row; its action is that of the command."""
    return await context.write(request.action.value, request.source, _said, request=request)


def _said(_: Connection, request: NoteEndpoint) -> dict[str, object]:
    return {"at_the_provider": request.detail}
