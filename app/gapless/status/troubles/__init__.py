"""Decide what is wrong: the one judgement, with how bad it is, since when, and what to do next. Pure.

The command and its exit code, the API and the page all show `troubles(report)`, so they cannot differ.
The texts are in this package and nowhere else, in one module for each part of the report. The limits are those of
`config/prometheus/alerts.yml`.

Three things are deliberately no trouble:

- A source that is never compared with a list, because of its mode or because its provider has none. Nothing failed,
  and whoever configured it knows. It does not change the verdict, or a deliberate push-only source would keep
  `gapless status` at exit code 1 for ever. `is_blind` marks it, and it is never shown as complete.
- A gap that was found and closed, if it is small and old: the product did its work. While webhooks are being lost
  (in the last hour, or 1 % and more of a window), the source is in hand, never good.
- Counts that only grow (late, unlisted, found behind the watermark): they describe the past; alerts watch the rise.
"""

from collections import Counter
from collections.abc import Iterable

from gapless.domain import EventMode, TypesOrigin
from gapless.status.report import SourceReport, StatusReport
from gapless.status.troubles.comparison import READ
from gapless.status.troubles.destination import of_destination
from gapless.status.troubles.source import of_source
from gapless.status.troubles.trouble import Severity, Trouble, TroubleKind, counted
from gapless.status.troubles.whole import of_whole


def troubles(report: StatusReport) -> list[Trouble]:
    """Return everything that is wrong, the worst first, then the oldest. Empty: all is well, as far as can be known."""
    found = [*of_whole(report)]
    for source in report.sources:
        found += of_source(source, report.at)
    for destination in report.destinations:
        found += of_destination(destination, report.at)
    return sorted(found, key=lambda each: (each.severity.rank, each.since is None, each.since or report.at))


def verdict(found: Iterable[Trouble]) -> Severity:
    """Return the worst severity among `found`, which may be all troubles or those of one source or destination."""
    return min((each.severity for each in found), key=lambda each: each.rank, default=Severity.GOOD)


def summary(found: Iterable[Trouble]) -> str:
    """Return the verdict in one sentence."""
    counts = Counter(each.severity for each in found)
    words = {Severity.TROUBLE: "wrong", Severity.UNKNOWN: "not known", Severity.IN_HAND: "in hand"}
    parts = [
        f"{counts[severity]} {'is' if counts[severity] == 1 else 'are'} {words[severity]}"
        for severity in words
        if counts[severity]
    ]
    return ", ".join(parts) if parts else "Nothing is wrong"


def is_blind(source: SourceReport) -> bool:
    """Return True if nothing can be proven of the source, whatever happens: it is never compared with a list."""
    return source.listed is None


def notes(source: SourceReport) -> list[str]:
    """Return remarks about the source that are no troubles."""
    found = []
    if is_blind(source):
        found.append("There is no list to compare with: lost webhooks cannot be seen.")
    if source.losses is not None and source.types_origin == TypesOrigin.ASSUMED.value:
        found.append(
            "It is assumed that every type is subscribed, so too much may count as missed; set types, or let the key "
            "read the endpoint."
        )
    if source.other_mode and source.livemode is not None:
        other = EventMode.of(livemode=not source.livemode).value
        found.append(
            f"{counted(source.other_mode, 'event')} of {other} mode came by webhook: recorded, and delivered only to "
            f'destinations with modes = ["{other}"].'
        )
    if source.clock_unverified:
        found.append(
            "Our clock is unverified: the provider has not said what time it is, and the ledger is on this machine. "
            "Make sure that the clock is synchronised."
        )
    return found


__all__ = ["READ", "Severity", "Trouble", "TroubleKind", "is_blind", "notes", "summary", "troubles", "verdict"]
