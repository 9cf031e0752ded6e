"""`/api/v1/passes`: the readings of the lists, and one of them with its slices."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter
from msgspec import Struct

from gapless.console.api import cursors
from gapless.console.api.shared import (
    PAGE,
    After,
    AnyRequest,
    Limit,
    OfSource,
    chosen_sources,
    reading,
    refuse,
    time,
)
from gapless.console.routing import principal_of
from gapless.domain import from_us
from gapless.ledger import Connection, pass_search, passes
from gapless.ledger.pass_search import PassEntry
from gapless.ledger.passes import Slice
from gapless.operations.context import OperationContext

NOUN = "passes"
Number = Annotated[int, PathParameter(ge=0, le=cursors.GREATEST, description="Its number.")]


class PassItem(Struct, frozen=True, kw_only=True):
    """One reading of the list of one stream over `[start, end)`."""

    id: int
    source: str
    stream: str
    kind: str
    start: datetime
    end: datetime
    state: str
    """`running`, `finished`, or `failed`: it was on demand and waits for a person."""
    outcome: str | None
    """null: it goes on."""
    started: datetime
    finished: datetime | None
    listed: int
    found: int
    missed: int
    requests: int
    slices: int
    slices_done: int
    attempts: int
    """How often one on demand failed."""
    next_attempt: datetime | None
    last_error: str | None


class PassesPage(Struct, frozen=True, kw_only=True):
    """A page of passes, the newest first."""

    items: list[PassItem]
    next: str | None
    complete: bool
    """false: not everything was looked at; there may be more behind `next`."""


class SliceItem(Struct, frozen=True, kw_only=True):
    """A part of a pass. It is `open`, `reading` or `done`."""

    start: datetime
    end: datetime
    state: str
    webhook_events: int
    """Events that came by webhook, and that its listing should show."""
    shown: int
    """Those of them that it did show."""
    left_from: datetime | None
    """From then on rows were too young to be recorded."""


class PassDetail(Struct, frozen=True, kw_only=True):
    """A pass with its slices in the order of time."""

    item: PassItem
    slices: list[SliceItem]


def pass_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/passes", tag="passes")
    async def list_passes(
        request: AnyRequest,
        *,
        source: OfSource = None,
        outcome: Annotated[str | None, QueryParameter(max_length=40, description="Such as `clean` or `found`.")] = None,
        only_open: Annotated[
            bool, QueryParameter(name="open", description="Only those under way or failed on demand.")
        ] = False,
        found: Annotated[bool, QueryParameter(description="Only those that found something.")] = False,
        after: After = None,
        limit: Limit = PAGE,
    ) -> PassesPage:
        """List passes, the newest first."""
        page = await context.read(
            pass_search.page,
            sources=chosen_sources(request, source),
            outcome=None if outcome is None else outcome.replace("\0", ""),
            open_only=only_open,
            found_only=found,
            after=cursors.decode(NOUN, after),
            limit=limit,
        )
        return PassesPage(
            items=[item(each) for each in page.rows], next=cursors.encode(NOUN, page.after), complete=page.is_full
        )

    @reading("/passes/{number:int}", tag="passes")
    async def show_pass(request: AnyRequest, number: Number) -> PassDetail:
        """Show a pass with its slices."""
        return await read_pass(request, context, number)

    return [list_passes, show_pass]


async def read_pass(request: AnyRequest, context: OperationContext, number: int) -> PassDetail:
    """Return one pass. Raises `HTTPException` (404) and `StoreError`."""
    found = await context.read(_with_slices, number=number) if 0 <= number <= cursors.GREATEST else None
    if found is None or not principal_of(request).may_touch(found[0].source):
        refuse(f"there is no pass {number}, or it was pruned", HTTPStatus.NOT_FOUND)
    entry, slices = found
    return PassDetail(item=item(entry), slices=[_slice(each) for each in slices])


def item(entry: PassEntry) -> PassItem:
    """Return a pass as the API shows it."""
    return PassItem(
        id=entry.id,
        source=entry.source,
        stream=entry.stream,
        kind=entry.kind,
        start=from_us(entry.start_us),
        end=from_us(entry.end_us),
        state=entry.state,
        outcome=entry.outcome,
        started=from_us(entry.started_us),
        finished=time(entry.finished_us),
        listed=entry.listed,
        found=entry.found,
        missed=entry.missed,
        requests=entry.requests,
        slices=entry.slices,
        slices_done=entry.slices_done,
        attempts=entry.attempts,
        next_attempt=from_us(entry.next_attempt_us) if entry.attempts and entry.state == "running" else None,
        last_error=entry.last_error,
    )


def _with_slices(connection: Connection, number: int) -> tuple[PassEntry, list[Slice]] | None:
    entry = pass_search.entry(connection, number)
    return None if entry is None else (entry, passes.slices(connection, number))


def _slice(part: Slice) -> SliceItem:
    return SliceItem(
        start=from_us(part.start_us),
        end=from_us(part.end_us),
        state="done" if part.done else "open" if part.cursor is None else "reading",
        webhook_events=part.witnesses,
        shown=part.matched,
        left_from=time(part.left_us),
    )
