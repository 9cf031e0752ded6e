"""The numbers of one moment, for the screen, and those of the whole run, for the end. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.demo.consumer import Consumer
from gapless.demo.script import Phase
from gapless.demo.status import Status
from gapless.demo.verdict import Verdict
from gapless_reconcilers.testing.fake import FakeProvider

SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One moment. What only the daemon knows is None until it has told it, and stays as last told while it is dead."""

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


def ledger_figures(status: Status | None) -> dict[str, int | datetime | None]:
    """The fields of `Figures` that the daemon told."""
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
class Report:
    """The whole run."""

    verdict: Verdict
    last: Figures
    dropped: int
    """Webhooks that the provider never sent."""
    given_up: int
    """Webhooks that it sent in vain until it gave up."""
    refusals: int
    """Requests to the provider's API that were answered 429 or 5xx."""
    deaths_s: tuple[float, ...]
    """How long the receiver was dead, each time."""
    recovery: tuple[timedelta, timedelta] | None
    """From occurrence to the consumer, for events found by list: median and longest. None: there were none."""

    @property
    def lost(self) -> int:
        """Events of which no webhook ever came through."""
        return self.dropped + self.given_up


def make_report(
    provider: FakeProvider,
    consumer: Consumer,
    emitted: Mapping[str, datetime],
    verdict: Verdict,
    last: Figures,
    deaths_s: tuple[float, ...],
) -> Report:
    """The numbers of the run, from the provider's and the consumer's own records."""
    arrived = {push.event.key for push in provider.pushes if push.status in SUCCESS}
    sent = {push.event.key for push in provider.pushes if push.attempt > 0}
    lost = emitted.keys() - arrived
    return Report(
        verdict=verdict,
        last=last,
        dropped=len(lost - sent),
        given_up=len(lost & sent),
        refusals=sum(request.status == 429 or request.status >= 500 for request in provider.requests),  # noqa: PLR2004
        deaths_s=deaths_s,
        recovery=_recovery(consumer, emitted),
    )


def _recovery(consumer: Consumer, emitted: Mapping[str, datetime]) -> tuple[timedelta, timedelta] | None:
    taken = consumer.accepted.values()
    spans = [each.at - emitted[each.key] for each in taken if each.via == "list" and each.key in emitted]
    return (sorted(spans)[len(spans) // 2], max(spans)) if spans else None
