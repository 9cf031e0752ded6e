"""The audit compares a provider's list of a window with the keys that are known. It needs no ledger."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from gapless.domain import Purpose, Source, TypePatterns, TypesOrigin, align_down, align_up
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.health import read_health, stream_names
from gapless.provider_api.pages import walk_pages
from gapless_reconcilers.kit.contract import OWN_STREAM, Capabilities, RemoteEvent, Subscription, Window

KeyLookup: TypeAlias = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Returns which of these keys are known."""
SLACK = timedelta(minutes=1)
"""A shorter part before the provider's history is not reported: it is the run time of the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingEntry:
    """A listed event whose key is not known."""

    key: str
    type: str
    occurred_at: datetime


@dataclass(slots=True, kw_only=True)
class AuditReport:
    """The listed events of the audited types in `window`, and those not known. Contains keys, never payloads."""

    window: Window
    types: TypePatterns
    types_origin: str
    unaudited: timedelta | None = None
    """The first part of the requested time, which the provider no longer lists. None: no part."""
    compared: bool = True
    listed: int = 0
    repeated: int = 0
    """Count of repeated entries in the list."""
    found: int = 0
    unreadable: set[str] = field(default_factory=set)
    """The SHA-256 of each listed row that cannot be read: it may be an event that is missing."""
    missing: dict[str, MissingEntry] = field(default_factory=dict)
    days: dict[str, Counter[str]] = field(default_factory=dict)
    """{day: {listed, missing}}"""
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    """{type: {listed, missing}}"""
    seen: set[str] = field(default_factory=set)

    def audited(self, events: Iterable[RemoteEvent]) -> list[RemoteEvent]:
        """Return the events of the audited types that were not seen before."""
        fresh = []
        for event in events:
            if event.type not in self.types or not event.listable:
                continue
            if event.key in self.seen:
                self.repeated += 1
                continue
            self.seen.add(event.key)
            fresh.append(event)
        return fresh

    def add(self, events: Iterable[RemoteEvent], known: Collection[str]) -> None:
        """Count audited events; `known` are the keys among them that are known."""
        for event in events:
            self.listed += 1
            self._count(event, "listed")
            if not self.compared:
                continue
            if event.key in known:
                self.found += 1
            else:
                self._count(event, "missing")
                self.missing[event.key] = MissingEntry(key=event.key, type=event.type, occurred_at=event.occurred_at)

    def _count(self, event: RemoteEvent, column: str) -> None:
        self.kinds.setdefault(event.type, Counter())[column] += 1
        self.days.setdefault(event.occurred_at.date().isoformat(), Counter())[column] += 1

    def not_listed(self, known: Collection[str]) -> int:
        """Return the number of keys in `known` that the list does not show."""
        return sum(key not in self.seen for key in known)

    def as_values(self, known: Collection[str] | None) -> dict[str, Any]:
        """Return the report for programs. None is unknown: nothing was compared."""
        counts = {"found": self.found, "missing": len(self.missing)} if self.compared else {}
        return {
            "start": self.window.start,
            "end": self.window.end,
            "types": self.types.patterns,
            "types_origin": self.types_origin,
            "unaudited_s": None if self.unaudited is None else self.unaudited.total_seconds(),
            "listed": self.listed,
            "listed_twice": self.repeated,
            "found": counts.get("found"),
            "missing": counts.get("missing"),
            "unreadable": len(self.unreadable),
            "not_listed": None if known is None else self.not_listed(known),
            "by_type": self._counts(self.kinds),
            "by_day": self._counts(self.days),
            "missing_events": list(self.missing.values()),
        }

    def _counts(self, table: dict[str, Counter[str]]) -> dict[str, dict[str, int | None]]:
        compared = self.compared
        return {
            name: {"listed": counts["listed"], "missing": counts["missing"] if compared else None}
            for name, counts in sorted(table.items())
        }


def plan_report(
    source: Source, capabilities: Capabilities, since: datetime, until: datetime | None, now: datetime
) -> AuditReport:
    """Return an empty report of the part of `[since, until)` that the provider can list."""
    unit, history = capabilities.resolution, capabilities.history
    start, end = align_down(since, unit), align_down(min(until or now, now - capabilities.grace), unit)
    oldest = start if history is None else align_up(now - history, unit)
    begin = max(start, oldest)
    return AuditReport(
        window=Window(start=begin, end=max(end, begin)),
        types=source.types,
        types_origin=source.types_origin.value,
        unaudited=oldest - start if oldest > start + SLACK else None,
    )


async def audit_list(
    client: ProviderClient,
    capabilities: Capabilities,
    webhook_url: str,
    since: datetime,
    until: datetime | None,
    *,
    now: datetime,
    known: KeyLookup | None,
    types: Sequence[str] = (),
    progress: Callable[[AuditReport], None] = lambda _: None,
) -> AuditReport:
    """Compare the provider's list with the keys in `known`; None: only count.

    `types` are the audited types; empty: as configured, else as subscribed, else all. `progress` is called after each
    page. Raises `ProviderError`s.
    """
    health = await read_health(client, webhook_url)
    source = typed_source(client.source, health.subscription, types, now)
    report = plan_report(source, capabilities, since, until, now - client.behind)
    report.compared = known is not None
    if report.window.start < report.window.end:
        for stream in (OWN_STREAM, *await stream_names(client)):
            await _read_stream(client, stream, report, known, progress)
    return report


async def _read_stream(
    client: ProviderClient,
    stream: str,
    report: AuditReport,
    known: KeyLookup | None,
    progress: Callable[[AuditReport], None],
) -> None:
    async with walk_pages(client.spending(Purpose.URGENT), stream, report.window) as pages:
        async for page in pages:
            report.unreadable.update(row.digest for row in page.unreadable)
            events = report.audited(page.events)
            report.add(events, await known([event.key for event in events]) if known else ())
            progress(report)


def typed_source(source: Source, subscription: Subscription | None, types: Sequence[str], now: datetime) -> Source:
    """Return the source with the types to audit: the named ones, else as configured, else as subscribed, else all."""
    if types:
        return replace(source, types=TypePatterns(types), types_origin=TypesOrigin.CONFIG)
    return source if subscription is None else source.subscribed(subscription, now)
