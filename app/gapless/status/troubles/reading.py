"""What is wrong with how often a source can be read: the vendor's grant is short, nearly used, or not refilled yet."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from gapless.ledger.budgets import GrantUse
from gapless.ledger.learned import PlanSummary
from gapless.status.report import ListReport, SourceReport
from gapless.status.troubles.trouble import Severity, Trouble, TroubleKind
from gapless.text import format_span, format_time

NEARLY_USED: Final = 0.9
"""Share of the grant from which on it is nearly used."""
MORE: Final = "set read_budget if the vendor grants more"


def of_reading(source: SourceReport, listed: ListReport) -> Iterator[Trouble]:
    """Yield what the grant does to the reading of the source."""
    if listed.plan is not None:
        yield from _of_plan(source, listed, listed.plan)
    if listed.grant is not None and (listed.grant_used or 0.0) >= NEARLY_USED:
        yield _nearly_used(source, listed.grant)
    if listed.unpaid_until is not None:
        yield Trouble(
            kind=TroubleKind.READING_PUT_OFF,
            severity=Severity.IN_HAND,
            source=source.name,
            text=f"A reading waits until {format_time(listed.unpaid_until)} for requests that the vendor's grant has "
            "not refilled yet: what is lost meanwhile is found then.",
            next=f"Nothing, if it is rare; else {MORE}, or lengthen the time between sweeps.",
        )


def _of_plan(source: SourceReport, listed: ListReport, plan: PlanSummary) -> Iterator[Trouble]:
    if plan.runs_out:
        history = "" if listed.history is None else f" of {format_span(listed.history)}"
        yield Trouble(
            kind=TroubleKind.HISTORY_TIGHT,
            severity=Severity.TROUBLE,
            source=source.name,
            text=f"The provider's history{history} nearly runs out between two readings, which are up to "
            f"{_span(plan.longest_s)} apart: if one fails, events leave it unread.",
            next=f"Lower every or every_max, or {MORE}.",
        )
    if plan.is_short:
        yield Trouble(
            kind=TroubleKind.GRANT_SHORT,
            severity=Severity.IN_HAND,
            source=source.name,
            text=f"The vendor's grant is short: half of all lost webhooks are found within {_span(plan.median_s)}, 99 "
            f"in 100 within {_span(plan.p99_s)}; with more of it, half within {_span(plan.wanted_median_s)}.",
            next=f"Nothing, if that is soon enough; else {MORE}, or ask it for more.",
        )


def _nearly_used(source: SourceReport, use: GrantUse) -> Trouble:
    return Trouble(
        kind=TroubleKind.GRANT_NEARLY_USED,
        severity=Severity.TROUBLE,
        source=source.name,
        text=f"{use.used:,} of the {use.granted:,} requests that the vendor grants in {format_span(use.period)} are "
        "used: soon it refuses requests of ours, and of whatever else reads the account.",
        next=f"See `gapless source show {source.name}` for what uses them; {MORE}, else lengthen every, or the time "
        "between sweeps.",
    )


def _span(seconds: float) -> str:
    return format_span(timedelta(seconds=seconds))
