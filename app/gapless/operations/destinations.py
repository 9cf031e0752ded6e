"""Pauses and resumes a destination."""

from typing import Annotated

from msgspec import Meta

from gapless.domain import from_us
from gapless.ledger import Connection
from gapless.ledger import destinations as ledger
from gapless.ledger.destinations import Pause, StoredDestination
from gapless.operations.context import Name, OperationContext, OperationRefused, OperationRequest
from gapless.text import format_time


class PauseDestination(OperationRequest, frozen=True, kw_only=True):
    """Send nothing to a destination until it is resumed; what is owed is kept."""

    operation = "destination.pause"
    explained_by = "reason"
    destination: Name
    reason: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


class ResumeDestination(OperationRequest, frozen=True, kw_only=True):
    """Send to a destination again."""

    operation = "destination.resume"
    destination: Name


async def pause(context: OperationContext, request: PauseDestination) -> dict[str, object]:
    """Pause the destination. All processes heed it within a second or two; attempts under way still end."""
    done = await context.write(request.operation, request.destination, _pause, context=context, request=request)
    context.wake()
    return done


def _pause(connection: Connection, context: OperationContext, request: PauseDestination) -> dict[str, object]:
    found = require(ledger.destination(connection, request.destination), request.destination)
    if (known := found.pause) is not None:
        since = format_time(from_us(known.since_us))
        raise OperationRefused(f"destination {found.name!r} is paused already, by {known.by} since {since}")
    made = Pause(since_us=context.now_us, by=context.actor, reason=request.reason)
    ledger.pause(connection, found.id, made)
    return {"destination": found.name, "paused": True}


async def resume(context: OperationContext, request: ResumeDestination) -> dict[str, object]:
    """End the pause of the destination; what it is owed is sent from now on."""
    done = await context.write(request.operation, request.destination, _resume, context=context, request=request)
    context.wake()
    return done


def _resume(connection: Connection, context: OperationContext, request: ResumeDestination) -> dict[str, object]:
    found = require(ledger.destination(connection, request.destination), request.destination)
    if found.pause is None:
        raise OperationRefused(f"destination {found.name!r} is not paused")
    ledger.resume(connection, found.id, context.now_us)
    return {"destination": found.name, "paused": False}


async def find(context: OperationContext, name: str) -> StoredDestination:
    """Return the destination of that name. Raises `OperationRefused`."""
    return require(await context.read(ledger.destination, name=name), name)


def require(found: StoredDestination | None, name: str) -> StoredDestination:
    """Return what was found. Raises `OperationRefused` if that is nothing."""
    if found is None:
        raise OperationRefused(f"destination {name!r} is not known; `gapless destination list` shows those that are")
    return found
