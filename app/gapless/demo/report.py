"""The numbers of one moment, for the display, and those of the whole run, for the report. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gapless.demo.configuration import Phase
from gapless.demo.consumer import Consumer, ReceivedAttempt
from gapless.demo.daemon_process import DaemonStatus
from gapless_reconcilers.testing.fake import FakeProvider

PASSES_NEEDED = 2
"""A pass that ends after an event became visible may have begun before that. The pass after it began later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoComparison:
    """The differences between the provider's and the consumer's events. All empty: the gap is closed."""

    missing: tuple[str, ...]
    """Events of the provider that the consumer has not accepted."""
    unexpected: tuple[str, ...]
    """Events of the consumer that the provider does not know."""
    changed: tuple[str, ...]
    """Events that came with more than one idempotency id, with none, or with that of another event."""
    refused: int
    """Deliveries with an invalid signature."""
    repeated: int
    """Attempts beyond the first of an event."""

    @property
    def closed(self) -> bool:
        """True if both have the same events, and every attempt was recognisable."""
        return not (self.missing or self.unexpected or self.changed or self.refused)


def compare_events(
    emitted: Collection[str], attempts: Mapping[str, Sequence[ReceivedAttempt]], accepted: Collection[str], refused: int
) -> DemoComparison:
    """Compare the events and attempts of the consumer with the provider's events (`emitted`)."""
    ids = {key: {attempt.idempotency_id for attempt in each} for key, each in attempts.items()}
    users = Counter(idempotency_id for each in ids.values() for idempotency_id in each)
    changed = [key for key, each in ids.items() if len(each) > 1 or "" in each or any(users[one] > 1 for one in each)]
    return DemoComparison(
        missing=tuple(key for key in emitted if key not in accepted),
        unexpected=tuple(sorted(set(accepted).difference(emitted))),
        changed=tuple(changed),
        refused=refused,
        repeated=sum(len(each) - 1 for each in attempts.values()),
    )


@dataclass(slots=True, kw_only=True)
class Ending:
    """The condition under which the demo may end: waiting longer can change nothing. It is asked with each new status.

    `last_occurred`: the time of the last event. `all_visible_at`: the time at which the provider's list shows every
    event that it ever will.
    """

    last_occurred: datetime
    all_visible_at: datetime
    _passes: set[datetime] = field(default_factory=set)

    def is_reached(self, status: DaemonStatus) -> bool:
        """Return True once two complete passes ended with every event visible, and no delivery is pending."""
        listed = status.source.list
        if listed.last_complete_pass is not None and listed.last_complete_pass > self.all_visible_at:
            self._passes.add(listed.last_complete_pass)
        is_proven = listed.complete_up_to is not None and listed.complete_up_to > self.last_occurred
        return is_proven and len(self._passes) >= PASSES_NEEDED and status.pending == 0


SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSnapshot:
    """The numbers of one moment. Those of the daemon are None until first read; while it is down, the last stay."""

    at: datetime
    elapsed_s: float
    length_s: float | None
    phase: Phase
    daemon_runs: bool
    at_provider: int
    at_consumer: int
    requests: int
    """Requests to the provider's API."""
    by_webhook: int | None = None
    by_list: int | None = None
    duplicates: int | None = None
    complete_up_to: datetime | None = None

    @property
    def missing(self) -> int:
        """Events that the provider has and the consumer has not."""
        return self.at_provider - self.at_consumer

    @property
    def behind_s(self) -> float | None:
        """Seconds from "complete up to" to now."""
        return None if self.complete_up_to is None else (self.at - self.complete_up_to).total_seconds()


def ledger_counts(status: DaemonStatus | None) -> dict[str, int | datetime | None]:
    """Return the fields of `DemoSnapshot` that the daemon reports."""
    if status is None:
        return {}
    source = status.source
    return {
        "by_webhook": source.events["webhook"],
        "by_list": source.events["list"],
        "duplicates": source.duplicates,
        "complete_up_to": source.list.complete_up_to,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The numbers of the whole run."""

    comparison: DemoComparison
    last: DemoSnapshot
    dropped: int
    """Webhooks that the provider never sent."""
    given_up: int
    """Webhooks that it sent in vain until it gave up."""
    refusals: int
    """Requests to the provider's API that were answered 429 or 5xx."""
    downtimes_s: tuple[float, ...]
    """Seconds that the receiver was down, for each kill."""
    recovery: tuple[timedelta, timedelta] | None
    """From occurrence to the consumer, for events found by list: median and longest. None: there were none."""

    @property
    def lost(self) -> int:
        """Events of which no webhook ever arrived."""
        return self.dropped + self.given_up


def make_report(
    provider: FakeProvider,
    consumer: Consumer,
    emitted: Mapping[str, datetime],
    comparison: DemoComparison,
    last: DemoSnapshot,
    downtimes_s: tuple[float, ...],
) -> DemoReport:
    """Return the numbers of the run, from the provider's and the consumer's own records."""
    arrived = {push.event.key for push in provider.pushes if push.status in SUCCESS}
    sent = {push.event.key for push in provider.pushes if push.attempt > 0}
    lost = emitted.keys() - arrived
    return DemoReport(
        comparison=comparison,
        last=last,
        dropped=len(lost - sent),
        given_up=len(lost & sent),
        refusals=sum(request.status == 429 or request.status >= 500 for request in provider.requests),  # noqa: PLR2004
        downtimes_s=downtimes_s,
        recovery=_recovery(consumer, emitted),
    )


def _recovery(consumer: Consumer, emitted: Mapping[str, datetime]) -> tuple[timedelta, timedelta] | None:
    taken = consumer.accepted.values()
    spans = [each.at - emitted[each.key] for each in taken if each.via == "list" and each.key in emitted]
    return (sorted(spans)[len(spans) // 2], max(spans)) if spans else None
