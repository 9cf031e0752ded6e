"""`/metrics`: the counters of this process, and the figures of the ledger from the status report.

A figure of unknown value has no sample. If the database cannot be read, all figures are absent and
`gapless_ledger_readable` is 0.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gapless.console.auth import Area
from gapless.console.routing import CONSOLE, ConsoleOptions, guarded, make_report_or_none, respond
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext
from gapless.status.figures import DESTINATION_FIGURES, SOURCE_FIGURES, SOURCE_INFO, Figure, R
from gapless.status.report import StatusReport


class LedgerCollector(Collector):
    """The figures of one report; None: the database could not be read."""

    def __init__(self, report: StatusReport | None) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """Yield every family, with a sample for each known value."""
        yield GaugeMetricFamily(
            "gapless_ledger_readable", "1 if the ledger series could be read.", float(self._report is not None)
        )
        if self._report is not None:
            for figure in (SOURCE_INFO, *SOURCE_FIGURES):
                yield _family(figure, "source", self._report.sources)
            for each in DESTINATION_FIGURES:
                yield _family(each, "destination", self._report.destinations)


class AllSeries(Collector):
    """Several collectors as one, without the creation times of counters."""

    def __init__(self, *parts: Collector) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Yield every family, in the order of the collectors."""
        for part in self._parts:
            for metric in part.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric


def render(metrics: Metrics, ledger: LedgerCollector | None, accept: str) -> tuple[bytes, str]:
    """Return the series in the format that the header `Accept` asks for, and its content type.

    `ledger` None: this process does not have the role `console`.
    """
    encode, content_type = choose_encoder(accept)
    parts = (metrics.registry,) if ledger is None else (metrics.registry, ledger)
    return encode(AllSeries(*parts)), content_type


def metrics_route(options: ConsoleOptions, context: OperationContext, metrics: Metrics) -> HTTPRouteHandler:
    """`GET /metrics`."""

    @get("/metrics", guards=[guarded(Area.METRICS)])
    async def metrics_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return every series; without the store, only those of the process."""
        ledger = LedgerCollector(await make_report_or_none(context)) if CONSOLE in options.roles else None
        body, content_type = render(metrics, ledger, request.headers.get("accept", ""))
        return respond(HTTPStatus.OK, body, content_type)

    return metrics_page


def _family(figure: Figure[R], owner: str, reports: Sequence[R]) -> Metric:
    kind: type[CounterMetricFamily | GaugeMetricFamily]
    kind = CounterMetricFamily if figure.is_counter else GaugeMetricFamily
    family = kind(f"gapless_{figure.name}", figure.help, labels=(owner, *figure.labels))
    for report in reports:
        for labels, value in figure.samples(report).items():
            if value is not None:
                family.add_metric((report.name, *labels), _number(value))
    return family


def _number(value: float | datetime | timedelta) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
