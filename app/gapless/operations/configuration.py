"""Puts a configuration in force, so that processes that are started with it retire and bring back again."""

from typing import Annotated

from msgspec import Meta

from gapless.ledger import configurations
from gapless.operations.context import OperationContext, OperationRequest


class ActivateConfiguration(OperationRequest, frozen=True, kw_only=True):
    """Put the configuration with that digest in force."""

    operation = "config.activate"
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


async def activate(context: OperationContext, request: ActivateConfiguration) -> dict[str, object]:
    """Give the configuration the newest generation. Processes act on it when they are started."""
    standing = await context.write(
        request.operation, request.digest, configurations.activate, digest=request.digest, now_us=context.now_us
    )
    return {"generation": standing.generation}
