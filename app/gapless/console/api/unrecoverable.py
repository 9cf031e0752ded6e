"""`/api/v1/unrecoverable`: times of which nothing can be proven any more."""

from datetime import datetime

from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery
from msgspec import Struct

from gapless.console.api import cursors
from gapless.console.api.shared import PAGE, After, AnyRequest, Limit, OfSource, chosen_sources, reading
from gapless.domain import from_us
from gapless.ledger import unrecoverable
from gapless.ledger.newest import NewestPage
from gapless.ledger.unrecoverable import Interval
from gapless.operations.context import OperationContext

NOUN = "unrecoverable"


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """Who looked into an interval, when, and what that person found."""

    at: datetime
    by: str | None
    reason: str | None


class IntervalItem(Struct, frozen=True, kw_only=True):
    """A time `[start, end)` of one stream. What was lost in it is unknown."""

    id: int
    source: str
    stream: str
    start: datetime
    end: datetime
    reason: str
    recorded: datetime
    acknowledged: Acknowledgement | None


class IntervalsPage(Struct, frozen=True, kw_only=True):
    """A page of intervals in the order in which they were recorded, the newest first."""

    items: list[IntervalItem]
    next: str | None
    complete: bool
    """false: not everything was looked at; there may be more behind `next`."""


def unrecoverable_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/unrecoverable", tag="unrecoverable")
    async def list_unrecoverable(
        request: AnyRequest,
        *,
        source: OfSource = None,
        acknowledged: FromQuery[bool | None] = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> IntervalsPage:
        """List unrecoverable intervals. `source.acknowledge` says that somebody has looked into them."""
        return intervals_page(
            await context.read(
                unrecoverable.page,
                sources=chosen_sources(request, source),
                acknowledged=acknowledged,
                after=cursors.decode(NOUN, after),
                limit=limit,
            )
        )

    return [list_unrecoverable]


def intervals_page(found: NewestPage[Interval]) -> IntervalsPage:
    """Return a page as the API shows it."""
    return IntervalsPage(
        items=[_item(each) for each in found.rows], next=cursors.encode(NOUN, found.after), complete=found.is_full
    )


def _item(row: Interval) -> IntervalItem:
    by = None
    if row.acknowledged_us is not None:
        by = Acknowledgement(at=from_us(row.acknowledged_us), by=row.acknowledged_by, reason=row.acknowledged_reason)
    return IntervalItem(
        id=row.id,
        source=row.source,
        stream=row.stream,
        start=from_us(row.start_us),
        end=from_us(row.end_us),
        reason=row.reason,
        recorded=from_us(row.recorded_us),
        acknowledged=by,
    )
