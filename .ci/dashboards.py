"""Writes the dashboards for Grafana into config/grafana: `python .ci/dashboards.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef, VariableRefresh

FOLDER = Path(__file__).parents[1] / "config/grafana/dashboards"
RUNBOOKS = "https://gapless.example/docs/runbooks/"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="$datasource")
INSTALLATION = 'cluster=~"$cluster", namespace=~"$namespace", job=~"$job"'
OWNER = "cluster, namespace, job"


class Chart(NamedTuple):
    """A panel with one query. S, D, P in it stand for the labels of a source, a destination, a process."""

    title: str
    query: str
    legend: str
    unit: str
    runbook: str
    page: str = ""
    """The page of the console."""

    @property
    def expr(self) -> str:
        """Return the query in the language of Prometheus."""
        of_source, of_destination = f'{INSTALLATION}, source=~"$source"', f'{INSTALLATION}, destination=~"$destination"'
        query = self.query.replace("{S", "{" + of_source).replace("{D", "{" + of_destination)
        query = query.replace("{P", "{" + INSTALLATION)
        return query.replace("by (S", f"by ({OWNER}, source").replace("by (D", f"by ({OWNER}, destination")


def rise(series: str, by: str, *, of: str = "sum") -> str:
    """Return the rate of a counter by some labels: `max` for the ledger's, which every replica has."""
    return f"{of} by ({by}) (rate({series}[$__rate_interval]))"


def level(series: str, by: str = "S") -> str:
    """Return a figure of the ledger, which every replica has."""
    return f"max by ({by}) ({series})"


def tail(series: str, labels: str, by: str) -> str:
    """Return the time within which 99 % happened."""
    return f"histogram_quantile(0.99, {rise(f'{series}_bucket{labels}', f'{by}, le')})"


SOURCE, DESTINATION = "{{cluster}} {{source}}", "{{cluster}} {{destination}}"
CHARTS: Mapping[str, tuple[Chart, ...]] = {
    "Proof": (
        Chart(
            "Behind the present",
            f"time() - {level('gapless_complete_up_to_timestamp_seconds{S}')}",
            SOURCE, "s", "GaplessWatermarkStalled",
        ),
        Chart("Service level: proven", "gapless:proven{S}", SOURCE, "bool", "GaplessSloBurns"),
        Chart(
            "Missed, by cause", level("gapless_missed_total{S}", "S, cause"), SOURCE + " {{cause}}", "short",
            "GaplessGapFound", "missed",
        ),
        Chart("Recovered", level("gapless_recovered_total{S}"), SOURCE, "short", "GaplessGapFound", "missed"),
        Chart(
            "Gap rate", level("gapless_gap_rate{S}", "S, window"), SOURCE + " {{window}}", "percentunit",
            "GaplessGapFound", "missed",
        ),
        Chart("Missing and not recorded", level("gapless_missing_open{S}"), SOURCE, "short",
              "GaplessEventsStillMissing", "missed"),
        Chart("History left", level("gapless_history_headroom_seconds{S}"), SOURCE, "s", "GaplessHistoryRunsOut"),
        Chart("Unrecoverable", level("gapless_unrecoverable_seconds_total{S}"), SOURCE, "s", "GaplessUnrecoverable",
              "unrecoverable"),
    ),
    "Receiving": (
        Chart("Webhooks, by outcome", rise("gapless_webhooks_total{S}", "S, outcome"), SOURCE + " {{outcome}}", "reqps",
              "GaplessReceiverUnavailable", "events"),
        Chart("Service level: accepted, errors in an hour", 'gapless:slo_errors:1h{S, slo="accepted"}', SOURCE,
              "percentunit", "GaplessAcceptedBurns", "missed"),
        Chart("Time to answer, 99 %", tail("gapless_webhook_seconds", "{S}", "S"), SOURCE, "s",
              "GaplessReceiverUnavailable"),
        Chart("Refused, by reason", rise("gapless_refused_total{S}", "S, reason"), SOURCE + " {{reason}}", "reqps",
              "GaplessRefusingMany", "quarantine"),
        Chart("Events recorded, by way", rise("gapless_events_total{S}", "S, via", of="max"), SOURCE + " {{via}}",
              "eps", "GaplessSilent", "events"),
        Chart("Time to commit, 99 %", tail("gapless_commit_seconds", "{P}", OWNER), "{{cluster}} {{job}}", "s",
              "GaplessLedgerNotWritable"),
        Chart("Waiting for a commit", f"sum by ({OWNER}) (gapless_recorder_queue{{P}})", "{{cluster}} {{job}}", "short",
              "GaplessReceiverUnavailable"),
        Chart("Our endpoint is active", level("gapless_subscription_healthy{S}"), SOURCE, "bool",
              "GaplessSubscriptionUnhealthy"),
    ),
    "Delivery": (
        Chart("Attempts, by outcome", rise("gapless_deliveries_total{D}", "D, outcome"), DESTINATION + " {{outcome}}",
              "ops", "GaplessDeliveriesOld", "destinations"),
        Chart("Service levels, errors in an hour", "gapless:slo_errors:1h{D}", DESTINATION + " {{slo}}", "percentunit",
              "GaplessSloBurns", "destinations"),
        Chart("Owed, by state", level("gapless_delivery_backlog{D}", "D, state"), DESTINATION + " {{state}}", "short",
              "GaplessDeliveriesOld", "destinations"),
        Chart("From recorded to delivered, 99 %", tail("gapless_delivery_seconds", "{D}", "D"), DESTINATION, "s",
              "GaplessDeliveriesOld", "destinations"),
        Chart("From due to the first attempt, 99 %", tail("gapless_first_attempt_seconds", "{D}", "D"), DESTINATION,
              "s", "GaplessSloBurns", "destinations"),
        Chart("Dead letters, by reason", level("gapless_dead_letters{D}", "D, reason"), DESTINATION + " {{reason}}",
              "short", "GaplessDeadLetters", "dead-letters"),
        Chart("Has a rest", level("gapless_circuit_open{D}", "D"), DESTINATION, "bool", "GaplessDeliveriesOld",
              "destinations"),
        Chart("Is paused", level("gapless_destination_paused{D}", "D"), DESTINATION, "bool", "GaplessDeliveriesOld",
              "destinations"),
    ),
    "Provider reads": (
        Chart("Requests, by status", rise("gapless_provider_requests_total{S}", "S, status"), SOURCE + " {{status}}",
              "reqps", "GaplessProviderWaits", "passes"),
        Chart("Passes, by outcome", rise("gapless_pass_total{S}", "S, outcome"), SOURCE + " {{outcome}}", "ops",
              "GaplessCredentialsRejected", "passes"),
        Chart("Streams, by the outcome of their last reading", level("gapless_streams{S}", "S, outcome"),
              SOURCE + " {{outcome}}", "short", "GaplessListNotBelieved", "passes"),
        Chart("Time of a pass, 99 %", tail("gapless_pass_seconds", "{S}", "S"), SOURCE, "s", "GaplessWatermarkStalled",
              "passes"),
        Chart("Between two readings", level("gapless_poll_interval_seconds{S}"), SOURCE, "s", "GaplessHistoryTight"),
        Chart("Recovery as planned", level("gapless_planned_recovery_seconds{S}", "S, share"), SOURCE + " {{share}}",
              "s", "GaplessGrantShort"),
        Chart("Used of the grant", level("gapless_provider_grant_used_ratio{S}"), SOURCE, "percentunit",
              "GaplessGrantNearlyUsed"),
        Chart("Our clock less the provider's", level("gapless_clock_skew_seconds{S}"), SOURCE, "s",
              "GaplessClockWrong"),
    ),
}  # fmt: skip


def variable(name: str, label: str, series: str) -> dashboard.QueryVariable:
    """Return a variable with the values that a label has. All also takes what lacks the label."""
    built = dashboard.QueryVariable(name).label(label).datasource(PROMETHEUS)
    built = built.query(f"label_values({series}, {name})").refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return built.include_all(True).all_value(".*").multi(True)


def link(title: str, url: str) -> dashboard.DashboardLink:
    """Return a link of a panel."""
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(True)


def panel(chart: Chart, number: int) -> timeseries.Panel:
    """Return the panel of a chart, with links to its runbook and to the console."""
    query = prometheus.Dataquery().expr(chart.expr).legend_format(chart.legend).datasource(PROMETHEUS).ref_id("A")
    links = [link("Runbook", f"{RUNBOOKS}{chart.runbook}.md"), link("Console", f"$console/{chart.page}")]
    built = timeseries.Panel().id(number).title(chart.title).unit(chart.unit).datasource(PROMETHEUS)
    return built.with_target(query).links(links).span(12).height(8).span_nulls(False)


def build(title: str, charts: tuple[Chart, ...]) -> str:
    """Return the JSON of a dashboard."""
    name = title.lower().replace(" ", "-")
    built = dashboard.Dashboard(f"Gapless: {title}").uid(f"gapless-{name}").tags(["gapless"]).readonly()
    built = built.refresh("30s").time("now-6h", "now").timezone("utc")
    built = built.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for label in ("cluster", "namespace", "job"):
        built = built.with_variable(variable(label, f"Installation: {label}", "gapless_build_info"))
    built = built.with_variable(variable("source", "Source", f"gapless_source_info{{{INSTALLATION}}}"))
    built = built.with_variable(variable("destination", "Destination", f"gapless_delivery_backlog{{{INSTALLATION}}}"))
    console = dashboard.TextBoxVariable("console").label("Console").default_value("http://127.0.0.1:8001")
    built = built.with_variable(console)
    others = dashboard.DashboardLink("Gapless").type(DashboardLinkType.DASHBOARDS).tags(["gapless"]).include_vars(True)
    built = built.link(others.keep_time(True))
    for number, chart in enumerate(charts, start=1):
        built = built.with_panel(panel(chart, number))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {f"gapless-{title.lower().replace(' ', '-')}.json": build(title, charts) for title, charts in CHARTS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)
