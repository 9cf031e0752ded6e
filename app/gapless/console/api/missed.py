"""`/api/v1/missed` and `/api/v1/missing`: what the webhooks lost, and what of it is not recorded yet."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery, QueryParameter
from msgspec import Struct

from gapless.console.api import cursors
from gapless.console.api.events import EventsPage, find_events
from gapless.console.api.shared import (
    PAGE,
    After,
    AnyRequest,
    Limit,
    OfSource,
    Since,
    Until,
    chosen_sources,
    reading,
    time,
    time_us,
)
from gapless.domain import Cause, from_us
from gapless.ledger import missing
from gapless.ledger.event_search import EventSearch
from gapless.ledger.missing import MissingDetails
from gapless.ledger.newest import NewestPage
from gapless.operations.context import OperationContext

NOUN = "missing"


class MissingState(StrEnum):
    """The state of something that a list showed and that could not be recorded at once."""

    OPEN = "open"
    RECOVERED = "recovered"
    LOST = "lost"
    """The provider no longer has it."""
    RESOLVED = "resolved"
    """A row that could not be read can be read now, or is not shown any more."""
    DISMISSED = "dismissed"


class MissingItem(Struct, frozen=True, kw_only=True):
    """An event that exists at the provider, or a row of its list that cannot be read."""

    source: str
    stream: str
    key: str
    type: str
    """"": it is not known."""
    reason: str
    state: str
    occurred: datetime
    until: datetime | None
    """Of a row that cannot be read: it occurred from `occurred` up to then."""
    found: datetime
    expected: bool
    missed: str | None
    """Why it was missed; null: it does not count as missed, or not yet."""
    attempts: int
    next_attempt: datetime | None
    """null: it is not asked for any more."""
    last_error: str | None


class MissingPage(Struct, frozen=True, kw_only=True):
    """A page of what was missing, in the order in which it was found, the newest first."""

    items: list[MissingItem]
    next: str | None
    complete: bool
    """false: not everything was looked at; there may be more behind `next`."""


def missed_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/missed", tag="missed")
    async def list_missed(
        request: AnyRequest,
        *,
        source: OfSource = None,
        cause: FromQuery[Cause | None] = None,
        since: Since = None,
        until: Until = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> EventsPage:
        """List the recorded events whose webhook was missed. What is not recorded yet is in `/api/v1/missing`."""
        wanted = EventSearch(
            sources=chosen_sources(request, source),
            missed=True,
            cause=None if cause is None else cause.value,
            start_us=time_us(context, "since", since),
            end_us=time_us(context, "until", until),
        )
        return await find_events(request, context, wanted, after, limit)

    @reading("/missing", tag="missed")
    async def list_missing(
        request: AnyRequest,
        *,
        source: OfSource = None,
        its: Annotated[MissingState | None, QueryParameter(name="state", description="Its state.")] = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> MissingPage:
        """List what a list showed and could not be recorded at once."""
        states = None if its is None else [its.value]
        return missing_page(
            await context.read(
                missing.page,
                sources=chosen_sources(request, source),
                states=states,
                after=cursors.decode(NOUN, after),
                limit=limit,
            )
        )

    return [list_missed, list_missing]


def missing_page(found: NewestPage[MissingDetails]) -> MissingPage:
    """Return a page as the API shows it."""
    return MissingPage(
        items=[_item(each) for each in found.rows],
        next=cursors.encode(NOUN, found.after),
        complete=found.is_full,
    )


def _item(row: MissingDetails) -> MissingItem:
    return MissingItem(
        source=row.source,
        stream=row.stream,
        key=row.key,
        type=row.type,
        reason=row.reason,
        state=row.state,
        occurred=from_us(row.occurred_us),
        until=time(row.until_us),
        found=from_us(row.found_us),
        expected=row.expected,
        missed=row.cause if row.expected and row.counted else None,
        attempts=row.attempts,
        next_attempt=from_us(row.next_attempt_us) if row.state == MissingState.OPEN else None,
        last_error=row.last_error,
    )
