"""The metrics of this process since it started. Aggregate them over replicas with `sum`.

Labels come from the configuration or closed enums, never from a request. The ledger metrics, which
survive restarts, are read from the database by `console.metrics`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from time import perf_counter
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

RECORD_DELAY_BUCKETS_S = (1, 5, 15, 60, 300, 3600, 6 * 3600, 86400)
RECOVERY_BUCKETS_S = (5, 15, 30, 60, 120, 300, 1800, 6 * 3600, 86400, 7 * 86400)
FAST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SLOW_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
DUE_BUCKETS_S = (1, 5, 15, 60, 300, 900)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class DestinationMeters(NamedTuple):
    """The series of one destination. To look one up by its labels costs as much as a good part of a delivery."""

    outcomes: Mapping[str, Counter]
    seconds: Histogram
    first_attempt: Histogram
    receipts_late: Counter
    rests: Gauge


class Metrics:
    """Every metric of the process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"gapless_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"gapless_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"gapless_{name}", text, labels, buckets=buckets, registry=registry)

        self.webhooks = counter("webhooks", "Webhooks by what became of them.", "source", "outcome")
        self.refused = counter("refused", "Webhooks refused, by reason.", "source", "reason")
        self.unrouted = counter("unrouted", "Requests to a path that is no source's.")
        self.address_refused = counter("address_refused", "Webhooks from outside of their source's allow_from.")
        self.login_failures = counter("login_failures", "Requests with a wrong, revoked or expired token.")
        self.quarantined = counter("quarantined", "Refused webhooks by whether they were kept.", "source", "outcome")
        self.webhook_seconds = histogram("webhook_seconds", "From the request to the answer.", FAST_BUCKETS_S, "source")
        self.record_delay = histogram(
            "record_delay_seconds",
            "From the occurrence of an event to its record.",
            RECORD_DELAY_BUCKETS_S,
            "source",
            "via",
        )
        self.recovery = histogram(
            "recovery_seconds",
            "From the occurrence of a missed event to its record.",
            RECOVERY_BUCKETS_S,
            "source",
            "via",
        )
        self.passes = counter("pass", "Finished passes by outcome.", "source", "outcome")
        self.pass_seconds = histogram("pass_seconds", "How long passes took.", SLOW_BUCKETS_S, "source")
        self.provider_requests = counter("provider_requests", "Requests to providers.", "source", "status")
        self.deliveries = counter("deliveries", "Delivery attempts by outcome.", "destination", "outcome")
        self.delivery_seconds = histogram(
            "delivery_seconds", "From the record of an event to its delivery.", SLOW_BUCKETS_S, "destination"
        )
        self.first_attempt = histogram(
            "first_attempt_seconds", "From when a delivery was due to its first attempt.", DUE_BUCKETS_S, "destination"
        )
        self.receipts_late = counter(
            "receipts_late", "Deliveries whose receipt did not come in time after a 2xx.", "destination"
        )
        self.connections = gauge("connections", "Connections that are open.", "listener")
        self.connections_closed = counter(
            "connections_closed", "Connections that we closed, by reason.", "listener", "reason"
        )
        self.stream_clients = gauge("stream_clients", "Listeners of the live stream.")
        self.stream_closed = counter("stream_closed", "Ends of listeners of the live stream, by reason.", "reason")
        self.stream_lag = gauge(
            "stream_lag_seconds", "Since all that was recorded had been read for the live stream; 0: nobody listens."
        )
        self.circuit_open = gauge("circuit_open", "1 while a destination is given a rest.", "destination")
        self.clock_jumps = counter("clock_jumps", "Times that the ledger's clock jumped.")
        self.clock_offset = gauge("clock_offset_seconds", "This machine's clock less the ledger's.")
        self.due_times_ahead = counter(
            "due_times_ahead", "Due times that lay too far ahead, and were made due.", "kind"
        )
        self.ledger_writable = gauge("ledger_writable", "1 while this process can write to the ledger.")
        self.recorder_queue = gauge("recorder_queue", "Webhooks that wait for a commit.")
        self.batch_size = histogram("recorder_batch_size", "Webhooks in one commit.", BATCH_BUCKETS)
        self.commit_seconds = histogram("commit_seconds", "How long commits of webhooks took.", FAST_BUCKETS_S)
        gauge("build_info", "The running release.", "version").labels(version).set(1)

    @contextmanager
    def commit(self, size: int) -> Iterator[None]:
        """Measure one commit of `size` webhooks."""
        self.batch_size.observe(size)
        started = perf_counter()
        try:
            yield
        finally:
            self.commit_seconds.observe(perf_counter() - started)

    def of_destination(self, name: str, outcomes: Iterable[str]) -> DestinationMeters:
        """Return the series of a destination, each of which begins at 0."""
        return DestinationMeters(
            outcomes={outcome: self.deliveries.labels(name, outcome) for outcome in outcomes},
            seconds=self.delivery_seconds.labels(name),
            first_attempt=self.first_attempt.labels(name),
            receipts_late=self.receipts_late.labels(name),
            rests=self.circuit_open.labels(name),
        )


def status_class(status: int) -> str:
    """Return the label `status` of an HTTP status: 2xx, 3xx, 4xx, 429 or 5xx."""
    return "429" if status == HTTPStatus.TOO_MANY_REQUESTS else f"{status // 100}xx"
