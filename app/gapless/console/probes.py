"""`/metrics`: the process series as they are counted, the ledger series as the database proves them.

A ledger series has no sample where its value is unknown. If the database cannot be read, all of them
are absent and `gapless_ledger_readable` is 0.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gapless.console.standing import DestinationStanding, Gap, Listed, Losses, Proof, SourceStanding, Standing
from gapless.metrics import Metrics

Sample = tuple[tuple[str, ...], float | datetime | timedelta | None]
"""Values of the labels, and the value; None: unknown, so no sample."""
Samples = Callable[[Standing], Iterable[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One ledger series, without the prefix `gapless_`. A counter's name ends in `_total`."""

    name: str
    text: str
    labels: tuple[str, ...]
    samples: Samples

    def family(self, standing: Standing) -> Metric:
        """The series as it stands."""
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family = kind(f"gapless_{self.name}", self.text, labels=self.labels)
        for labels, value in self.samples(standing):
            if value is not None:
                family.add_metric(labels, _number(value))
        return family


class LedgerSeries(Collector):
    """The ledger series of one moment; None: the database could not be read."""

    def __init__(self, standing: Standing | None) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        """Every family, each with a sample for what is known."""
        yield GaugeMetricFamily(
            "gapless_ledger_readable", "1 if the ledger series could be read.", float(self._standing is not None)
        )
        if self._standing is not None:
            for series in LEDGER_SERIES:
                yield series.family(self._standing)


class AllSeries(Collector):
    """Several collectors as one, without the times at which counters were made."""

    def __init__(self, *parts: Collector) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Every family, in order of the collectors."""
        for part in self._parts:
            for metric in part.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric


def render(metrics: Metrics, ledger: LedgerSeries | None, accept: str) -> tuple[bytes, str]:
    """The series in the format that the header `Accept` asks for, and its content type.

    `ledger` None: this process has not the role that shows the ledger.
    """
    encode, content_type = choose_encoder(accept)
    parts = (metrics.registry,) if ledger is None else (metrics.registry, ledger)
    return encode(AllSeries(*parts)), content_type


def _number(value: float | datetime | timedelta) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _of_sources(value: Callable[[SourceStanding], float | None]) -> Samples:
    return lambda standing: [((source.name,), value(source)) for source in standing.sources]


def _of_losses(value: Callable[[Losses], float]) -> Samples:
    return _of_sources(lambda source: None if source.losses is None else value(source.losses))


def _of_listed(value: Callable[[Listed], float | datetime | timedelta | None]) -> Samples:
    def samples(standing: Standing) -> Iterator[Sample]:
        for source in standing.sources:
            if source.listed is not None:
                yield (source.name,), value(source.listed)

    return samples


def _of_proof(value: Callable[[Proof], datetime | None]) -> Samples:
    return _of_listed(lambda listed: value(listed.proof))


def _of_gaps(value: Callable[[Gap], float | None]) -> Samples:
    def samples(standing: Standing) -> Iterator[Sample]:
        for source in standing.sources:
            for window, gap in source.gaps.items():
                yield (source.name, window), None if gap is None else value(gap)

    return samples


def _of_destinations(value: Callable[[DestinationStanding], datetime | None]) -> Samples:
    return lambda standing: [((destination.name,), value(destination)) for destination in standing.destinations]


def _sources(standing: Standing) -> Iterator[Sample]:
    for source in standing.sources:
        yield (source.name, source.provider, source.coverage.value, source.mode.value), 1


def _events(standing: Standing) -> Iterator[Sample]:
    for source in standing.sources:
        for via, count in source.events.items():
            yield (source.name, via.value), count


def _missed(standing: Standing) -> Iterator[Sample]:
    for source in standing.sources:
        for cause, count in source.losses.missed.items() if source.losses else ():
            yield (source.name, cause.value), count


def _backlog(standing: Standing) -> Iterator[Sample]:
    for destination in standing.destinations:
        for state, count in destination.backlog.items():
            yield (destination.name, state.value), count


def _dead(standing: Standing) -> Iterator[Sample]:
    for destination in standing.destinations:
        for reason, count in destination.dead.items():
            yield (destination.name, reason), count


def _series(name: str, text: str, samples: Samples, *labels: str) -> Series:
    return Series(name=name, text=text, labels=labels or ("source",), samples=samples)


LEDGER_SERIES: Final = (
    _series("source_info", "1 for every active source.", _sources, "source", "provider", "coverage", "mode"),
    _series("events_total", "Events recorded, by how they were first seen.", _events, "source", "via"),
    _series(
        "expected_total", "Events that the subscription should have pushed.", _of_losses(lambda known: known.expected)
    ),
    _series("missed_total", "Expected events that the webhook road lost.", _missed, "source", "cause"),
    _series("recovered_total", "Missed events that are recorded now.", _of_losses(lambda known: known.recovered)),
    _series("late_total", "Missed events whose webhook came after all.", _of_losses(lambda known: known.late)),
    _series("duplicates_total", "Webhooks of events that were there already.", _of_sources(lambda s: s.duplicates)),
    _series(
        "unlisted_total",
        "Events by webhook that two complete listings lacked.",
        _of_losses(lambda known: known.unlisted),
    ),
    _series(
        "found_behind_watermark_total",
        "Events that became visible after their time was vouched for.",
        _of_listed(lambda known: known.behind_watermark),
    ),
    _series("gap_rate", "Missed per expected.", _of_gaps(lambda gap: gap.rate), "source", "window"),
    _series("window_missed", "Events missed in the window.", _of_gaps(lambda gap: gap.missed), "source", "window"),
    _series(
        "window_expected", "Events expected in the window.", _of_gaps(lambda gap: gap.expected), "source", "window"
    ),
    _series(
        "watermark_timestamp_seconds",
        "Time up to which the ledger agrees with the list.",
        _of_proof(lambda proof: proof.watermark),
    ),
    _series(
        "complete_up_to_timestamp_seconds",
        "The watermark, or the oldest open missing row if that is earlier.",
        _of_proof(lambda proof: proof.complete_up_to),
    ),
    _series(
        "last_complete_pass_timestamp_seconds",
        "When every stream had last been read whole.",
        _of_proof(lambda proof: proof.last_complete_pass),
    ),
    _series(
        "history_headroom_seconds",
        "Time until the provider forgets what lies behind the watermark.",
        _of_listed(lambda known: known.history_headroom),
    ),
    _series(
        "unrecoverable_seconds_total",
        "Time of which the provider can prove nothing any more.",
        _of_listed(lambda known: known.unrecoverable_time),
    ),
    _series("missing_open", "Known events not recorded yet.", _of_listed(lambda known: known.missing_open)),
    _series(
        "provider_budget_remaining",
        "Read requests left in the vendor's period.",
        _of_listed(lambda known: known.budget_remaining),
    ),
    _series("poll_interval_seconds", "Time between passes, as paced now.", _of_listed(lambda known: known.interval)),
    _series(
        "subscription_healthy",
        "1 if the provider has our endpoint enabled.",
        _of_sources(lambda source: source.subscription_healthy),
    ),
    _series("source_silent", "1 if webhooks stay away for too long.", _of_sources(lambda source: source.silent)),
    _series("delivery_backlog", "Deliveries not done, by state.", _backlog, "destination", "state"),
    _series(
        "oldest_pending_timestamp_seconds",
        "When the oldest pending delivery was made.",
        _of_destinations(lambda destination: destination.oldest_pending),
        "destination",
    ),
    _series("dead_letters", "Dead letters, by reason.", _dead, "destination", "reason"),
)
"""Every ledger series but `ledger_readable`."""
