"""Everything that is known of one source, as text and as JSON: for `gapless source show`."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from gapless.cli.grants import grant_in_words
from gapless.domain import Mode
from gapless.ledger.learned import Learned, PlanSummary
from gapless.operations.source_facts import HourRate, SourceFacts
from gapless.reconcile.pace import NEVER
from gapless.reconcile.policy import SourcePolicy
from gapless.status import values
from gapless.status.report import ListReport, SourceReport
from gapless.status.troubles import Trouble
from gapless.text import format_span, format_time

REASONS = {
    "start": "we were not running, or have just begun",
    "find": "a reading found an event that no webhook had brought",
    "endpoint": "our endpoint is not healthy",
    "refused": "we answered a webhook with 5xx",
    "doubted": "we refused a webhook that may be genuine",
    "late": "a webhook came late",
    "silence": "no webhook came for longer than usual",
    "key_replaced": "the key was replaced",
    "key_rejected": "the key was rejected",
}
"""The reasons of `reconcile.urgency.Reason`, in words."""
Line = tuple[str, str]
"""What it is, and its value."""


def lines(report: SourceReport, policy: SourcePolicy, facts: SourceFacts) -> Iterator[Line]:
    """Yield everything as text; what is not known is "unknown"."""
    yield "source", f"{report.name}: {report.provider}, {report.mode.value}, {report.coverage.value}"
    yield "state", report.state if report.reason is None else f"{report.state}: {report.reason}"
    yield "account", _or_unknown(report.account)
    yield "types", f"{', '.join(report.types)} ({report.types_origin})"
    yield "last webhook", _time(facts.last_webhook)
    if report.listed is None:
        yield "list", "it is never compared with one"
        return
    yield from _configured(policy, facts)
    yield "complete up to", _time(report.listed.proof.complete_up_to)
    yield "watermark", _time(report.listed.proof.watermark)
    yield "checked", _time(report.listed.proof.checked_at)
    yield "read", _time(report.listed.proof.last_complete_pass)
    yield "streams", str(len(report.streams))
    yield from _learned(report, report.listed, facts)
    yield from _plan(report.listed.plan)
    yield from _grant(report.listed, policy)
    yield "next reading", f"{_time(report.listed.next_pass)}: {why(report, facts)}"
    yield "last sweep", _sweep(facts, policy)


def as_values(
    report: SourceReport, policy: SourcePolicy, facts: SourceFacts, found: Sequence[Trouble]
) -> dict[str, object]:
    """Return everything for JSON; null is unknown."""
    grant = policy.grant
    return {
        **values.of_source(report, found),
        "configuration": {
            "every_s": policy.pace.shortest.total_seconds(),
            "every_max_s": policy.pace.longest.total_seconds(),
            "adaptive": policy.pace.adaptive,
            "lookback_s": policy.lookback.total_seconds(),
            "sweep_every_s": None if policy.sweep_every >= NEVER else policy.sweep_every.total_seconds(),
            "requests_per_second": policy.rate,
            "grace_is_set": policy.is_grace_set,
        },
        "grant_source": None if grant is None else grant.source,
        "rhythm": {
            "known_from": facts.known_from,
            "busiest": {each.hour: each.events for each in facts.busiest},
            "quietest": {each.hour: each.events for each in facts.quietest},
        },
        "last_webhook": facts.last_webhook,
        "lookback_s": None if facts.lookback is None else facts.lookback.total_seconds(),
        "next_reading": None
        if report.listed is None
        else {
            "at": report.listed.next_pass,
            "why": why(report, facts),
            "look": facts.look,
            "look_due": facts.look_due,
        },
        "sweep": {
            "last": facts.last_sweep,
            "pieces": facts.sweep_pieces,
            "pieces_done": facts.sweep_pieces_done,
        },
    }


def why(report: SourceReport, facts: SourceFacts) -> str:
    """Return why the source is read when it is read next."""
    listed = report.listed
    if listed is None:
        return "it has no list"
    if listed.waiting_until is not None:
        return "the provider wants a pause until then"
    if listed.unpaid_until is not None and listed.unpaid_until >= listed.next_pass:
        return "the grant has not refilled the requests before"
    if facts.look is not None and facts.look_due is not None and facts.look_due <= listed.next_pass:
        return REASONS.get(facts.look, facts.look)
    return "its turn comes" if report.mode is not Mode.WEBHOOK else "only the endpoint is looked at"


def _configured(policy: SourcePolicy, facts: SourceFacts) -> Iterator[Line]:
    pace, lookback = policy.pace, facts.lookback
    often = f"every {format_span(pace.shortest)}"
    yield "may be read", f"{often} to {format_span(pace.longest)}" if pace.adaptive else often
    widened = ""
    if lookback is not None and lookback > policy.lookback:
        widened = f", widened to {format_span(lookback)} by what came late"
    yield "lookback", f"{format_span(policy.lookback)}{widened}"


def _learned(report: SourceReport, listed: ListReport, facts: SourceFacts) -> Iterator[Line]:
    learned = listed.learned
    yield "rhythm known from", _time(facts.known_from)
    yield "busiest hours (UTC)", _hours(facts.busiest)
    yield "quietest hours (UTC)", _hours(facts.quietest)
    if learned is None:
        yield "learned", "unknown"
        return
    yield "learned", _time(listed.learned_at)
    yield "events a day", f"{learned.events_a_day:,.0f}, in {learned.groups_a_day:,.0f} groups"
    yield "webhook lag", _ages(learned.lag_p50_s, learned.lag_p999_s, learned.webhooks)
    yield "list delay", _ages(learned.shown_p50_s, learned.shown_p999_s, learned.shown)
    yield from _limits(report, learned)


def _limits(report: SourceReport, learned: Learned) -> Iterator[Line]:
    settle = learned.settle_s if report.mode is Mode.HYBRID else 0
    yield "settle", f"{_span(settle)}: a listed event is recorded from this age on"
    yield "grace", f"{_span(learned.grace_s)}: what no webhook has brought by this age is missed"


def _plan(plan: PlanSummary | None) -> Iterator[Line]:
    if plan is None:
        yield "plan", "unknown: none was made yet"
        return
    yield "plan", plan.words
    yield "planned recovery", f"half within {_span(plan.median_s)}, 99 in 100 within {_span(plan.p99_s)}"
    yield "planned sweeps", "none" if plan.sweep_every_s is None else f"every {_span(plan.sweep_every_s)}"


def _grant(listed: ListReport, policy: SourcePolicy) -> Iterator[Line]:
    yield "grant", "its vendor publishes none" if policy.grant is None else grant_in_words(policy.grant)
    use = listed.grant
    if use is None:
        yield "used", "unknown: nothing was asked yet"
        return
    now = "" if use.granted is None else f" of {use.granted:,} granted at present ({use.ratio:.1%})"
    yield "used", f"{use.used:,} requests{now} in the last {format_span(use.period)}"
    for purpose, count in sorted(use.by_purpose.items(), key=lambda each: -each[1]):
        yield f"  {purpose}", f"{count:,}"


def _sweep(facts: SourceFacts, policy: SourcePolicy) -> str:
    if policy.sweep_every >= NEVER:
        return "off"
    last = "none yet" if facts.last_sweep is None else format_time(facts.last_sweep)
    if not facts.sweep_pieces:
        return last
    return f"{last}; one is under way, {facts.sweep_pieces_done} of {facts.sweep_pieces} pieces read"


def _hours(rates: Sequence[HourRate]) -> str:
    return ", ".join(f"{each.hour} ({each.events:.1f} events)" for each in rates) or "unknown"


def _ages(half_s: float | None, p999_s: float | None, samples: int) -> str:
    if half_s is None or p999_s is None:
        return f"unknown ({samples} samples)"
    return f"half within {half_s:.1f}s, 999 in 1000 within {p999_s:.1f}s ({samples:,} samples)"


def _span(seconds: float) -> str:
    return format_span(timedelta(seconds=seconds))


def _time(time: datetime | None) -> str:
    return "unknown" if time is None else format_time(time)


def _or_unknown(value: Any) -> str:
    return "unknown" if value is None else str(value)
