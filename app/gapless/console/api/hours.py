"""`/api/v1/hours`: counts of each hour of occurrence, for charts."""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from gapless.console.api.shared import AnyRequest, reading, refuse
from gapless.console.routing import make_report, principal_of
from gapless.domain import HOUR_US, Source, from_us, to_us
from gapless.ledger import Connection, missing, tallies
from gapless.ledger.tallies import MISSED, Totals
from gapless.operations.context import OperationContext
from gapless.status.report import SourceReport

DAY = 24


class HourItem(Struct, frozen=True, kw_only=True):
    """One hour, by the time at which events occurred."""

    start: datetime
    by_webhook: int
    by_list: int
    by_redelivery: int
    missed: int
    missing: int
    """Known events of this hour that are not recorded yet."""
    is_proven: bool
    """The list was compared up to its end. Else the counts may grow, and what was missed is not known."""


class HoursOfSource(Struct, frozen=True, kw_only=True):
    """The hours of one source, the oldest first."""

    source: str
    proven_until: datetime | None
    """Up to when it agrees with the list; null: it was not compared."""
    items: list[HourItem]


def hour_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/sources/{source:str}/hours", tag="sources")
    async def list_hours(
        request: AnyRequest,
        source: FromPath[str],
        hours: Annotated[int, QueryParameter(ge=1, le=31 * DAY, description="How many, up to this one.")] = DAY,
    ) -> HoursOfSource:
        """Count the events of each hour by the way in which they came."""
        if source not in context.sources or not principal_of(request).may_touch(source):
            refuse(f"source {source!r} is not configured", HTTPStatus.NOT_FOUND)
        report = await make_report(context, principal_of(request))
        found = next((each for each in report.sources if each.name == source), None)
        return await read_hours(context, context.sources[source], found, report.at, hours)

    return [list_hours]


async def read_hours(
    context: OperationContext, source: Source, report: SourceReport | None, now: datetime, count: int = DAY
) -> HoursOfSource:
    """Return the last hours of a source, that of `now` too. Raises `StoreError`."""
    last = to_us(now) // HOUR_US
    counted, open_ = await context.read(_counts, source_id=source.id, first=last - count + 1, last=last)
    listed = None if report is None else report.listed
    until = None if listed is None else listed.proof.complete_up_to
    none = Totals(counts=dict.fromkeys(tallies.COUNTS, 0))
    items = [
        _hour(hour, counted.get(hour, none), open_.get(hour, 0), until) for hour in range(last - count + 1, last + 1)
    ]
    return HoursOfSource(source=source.name, proven_until=until, items=items)


def _counts(connection: Connection, source_id: int, first: int, last: int) -> tuple[dict[int, Totals], dict[int, int]]:
    return (
        tallies.hours(connection, source_id, first, last + 1),
        missing.open_by_hour(connection, source_id, first, last + 1),
    )


def _hour(hour: int, totals: Totals, missing: int, until: datetime | None) -> HourItem:
    start = from_us(hour * HOUR_US)
    return HourItem(
        start=start,
        by_webhook=totals.counts["by_webhook"],
        by_list=totals.counts["by_list"],
        by_redelivery=totals.counts["by_redelivery"],
        missed=sum(totals.counts[name] for name in MISSED.values()),
        missing=missing,
        is_proven=until is not None and start + timedelta(hours=1) <= until,
    )
