"""A page of dead letters, or of held deliveries, for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from gapless.console.api import cursors
from gapless.console.api.shared import refuse
from gapless.ledger import Connection, destinations, unsettled
from gapless.ledger.unsettled import Key, Unsettled, UnsettledFilter
from gapless.operations.context import OperationContext

NOUN = "dead-letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPage:
    """Some deliveries in the order in which their events were recorded, and the cursor of the next page."""

    rows: Sequence[Unsettled]
    next: str | None


async def find_waiting(
    context: OperationContext, chosen: UnsettledFilter, after: str | None, limit: int
) -> WaitingPage:
    """Return a page. Raises `HTTPException` and `StoreError`."""
    place = cursors.decode(NOUN, after, length=2)
    start = unsettled.START if place is None else (place[0], place[1])
    rows = await context.read(_page, chosen=chosen, after=start, limit=limit + 1)
    if rows is None:
        refuse(f"destination {', '.join(chosen.destinations or ())} is not known; see Destinations")
    last = rows[limit - 1] if len(rows) > limit else None
    return WaitingPage(
        rows=rows[:limit],
        next=cursors.encode(NOUN, None if last is None else (last.seq, last.destination_id)),
    )


def _page(connection: Connection, chosen: UnsettledFilter, after: Key, limit: int) -> list[Unsettled] | None:
    """Return some deliveries; None: a destination is not known."""
    if any(destinations.destination(connection, each) is None for each in chosen.destinations or ()):
        return None
    return unsettled.page(connection, chosen, after=after, limit=limit)
