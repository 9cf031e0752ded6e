"""Waits for the secret that a vendor chooses and tells in an unsigned handshake, and shows it once."""

from typing import Annotated

from msgspec import Meta

from gapless import one_reader
from gapless.domain import from_us
from gapless.ledger import Connection, handshakes
from gapless.operations.context import Name, OperationContext, OperationRefused, OperationRequest
from gapless.operations.principals import AccessRole

Address = Annotated[str, Meta(max_length=64)]


class AwaitHandshake(OperationRequest, frozen=True, kw_only=True):
    """Take the next handshake of a source for so many seconds; what it offers is sealed for `reader`."""

    operation = "source.handshake"
    needs = AccessRole.OWNER
    source: Name
    seconds: Annotated[int, Meta(ge=1, le=3600)]
    reader: Address
    """A public key (X25519) in base64."""


class TakeHandshake(OperationRequest, frozen=True, kw_only=True):
    """Take what has come for `reader`, once. `ends`: wait no more, whether it has come or not."""

    operation = "source.handshake_take"
    needs = AccessRole.OWNER
    is_shown_once = True
    source: Name
    reader: Address
    ends: bool = False


async def open_window(context: OperationContext, request: AwaitHandshake) -> dict[str, object]:
    """Let handshakes of the source be taken until the time is over, or one has come."""
    source = context.source(request.source)
    if not source.provider.capabilities.offers_secret:
        raise OperationRefused(f"the vendor of source {source.name!r} tells no secret in a handshake; there is none")
    if not one_reader.is_address(request.reader):
        raise OperationRefused("reader is no public key of X25519 in base64; use `gapless source handshake`")
    return await context.write(
        request.operation, source.name, _wait, source_id=source.id, request=request, now_us=context.now_us
    )


def _wait(connection: Connection, source_id: int, request: AwaitHandshake, now_us: int) -> dict[str, object]:
    until_us = now_us + request.seconds * 1_000_000
    handshakes.wait(connection, source_id, request.reader, until_us)
    return {"source": request.source, "until": from_us(until_us).isoformat()}


async def take(context: OperationContext, request: TakeHandshake) -> dict[str, object]:
    """Return what has come, sealed, and forget it; None: nothing has."""
    source = context.source(request.source)
    found = await context.read(handshakes.waiting, source_id=source.id)
    if found is None or found.reader != request.reader:
        return {"sealed": None, "waits": False}
    if found.sealed is None and not request.ends:
        return {"sealed": None, "waits": True}
    await context.write(request.operation, source.name, handshakes.forget, source_id=source.id, reader=request.reader)
    return {"sealed": found.sealed, "waits": False}
