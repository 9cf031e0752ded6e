"""`/metrics` agrees with the ledger, with the table in the documentation, and with a real Prometheus."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from reports import LEARNED
from sqlalchemy import func, select, update

from gapless.connections.register import Connections
from gapless.console.feed.limits import Closing
from gapless.console.metrics import AllSeries, LedgerCollector, render
from gapless.deliver.worker import OUTCOMES
from gapless.destinations.contract import FailureReason
from gapless.domain import Mode, Silence, Via, span_us, to_us
from gapless.ledger import learned, silence
from gapless.ledger.engine import StoreUnavailable
from gapless.ledger.tables import BUDGET, BUDGET_USE, DELIVERY, MISSING, SOURCE, UNRECOVERABLE
from gapless.metrics import Metrics
from gapless.receive.webhook import REASONS, Outcome
from gapless.status.figures import DESTINATION_FIGURES, SOURCE_FIGURES, SOURCE_INFO
from gapless.status.reader import read_report
from gapless.status.report import StatusReport

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
RULES = ROOT / "config/prometheus/alerts.yml"
LEVELS = RULES.with_name("slo.yml")
TABLE = ROOT / "docs/metrics.md"
"""The file with the table of metrics."""
Absent = Callable[[str, str], NoReturn]
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Documented:
    """A row of the table."""

    kind: str
    labels: tuple[str, ...]


def table() -> str:
    """The table of metrics, between its markers."""
    text = TABLE.read_text() if TABLE.exists() else ""
    marked = re.search(r"<!-- metrics -->(.*?)<!-- /metrics -->", text, re.DOTALL)
    assert marked
    return marked[1]


def documented() -> dict[str, Documented]:
    """The rows of the table by name."""
    rows = re.findall(r"^\| `(gapless_\w+)` \| (\w+) \| ([\w, ]*?) ?\|", table(), re.MULTILINE)
    return {name: Documented(kind, tuple(filter(None, labels.split(", ")))) for name, kind, labels in rows}


def declared() -> list[str]:
    """Return the rows of the table, generated from the figures of the ledger."""
    of_sources = [("source", figure) for figure in (SOURCE_INFO, *SOURCE_FIGURES)]
    of_destinations = [("destination", figure) for figure in DESTINATION_FIGURES]
    return [
        f"| `gapless_{figure.name}` | {'counter' if figure.is_counter else 'gauge'} "
        f"| {', '.join((owner, *figure.labels))} | ledger | {figure.help} | {figure.absent} |"
        for owner, figure in [*of_sources, *of_destinations]
    ]


def test_the_table_says_of_the_ledger_what_its_figures_declare() -> None:
    rows = [row for row in table().splitlines() if "| ledger |" in row and "gapless_ledger_readable" not in row]
    assert rows == declared(), "write these rows:\n" + "\n".join(declared())


async def read_status(console: Any) -> StatusReport:
    return await read_report(console.context.runtime.store, console.context.sources, console.now[0])


async def scraped(console: Any) -> dict[tuple[str, ...], float]:
    """{(series, values of its labels in their alphabetical order…): value} as Prometheus would read it."""
    body, _ = render(console.metrics, LedgerCollector(await read_status(console)), "text/plain")
    return {
        (sample.name.removeprefix("gapless_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def fill(console: Any) -> None:
    """Every ledger series gets a value."""
    await console.add_destination("shop")
    console.context.sources.change("acme", silence=Silence(after=timedelta(hours=2)))
    await console.record(Via.WEBHOOK, "evt_1", "evt_2", "evt_2")
    await console.record(Via.LIST, "evt_3", "evt_4")
    await console.record(Via.WEBHOOK, "evt_4")
    await console.record(Via.IMPORT, "evt_5")
    answered = {"answers": 1, "answered_us": to_us(console.now[0]) - 7_000_000}
    first = select(func.min(DELIVERY.c.event_seq)).scalar_subquery()
    one = update(DELIVERY).where(DELIVERY.c.event_seq == first).values(**answered)
    await console.context.runtime.write(lambda c: c.execute(one).rowcount)
    await console.listed()
    scope = console.source().provider.budget_scope()
    now_us, day_us = to_us(console.now[0]), span_us(timedelta(days=1))
    await console.rows(BUDGET, scope=scope, period_start_us=now_us, used=250, granted=1_000, period_us=day_us)
    for purpose, ago_us, requests in (("heartbeat", 0, 200), ("sweep", day_us // 2, 30), ("sweep", 2 * day_us, 99)):
        await console.rows(BUDGET_USE, scope=scope, start_us=now_us - ago_us, purpose=purpose, requests=requests)
    await console.context.runtime.write(learned.note, source_id=console.source().id, at_us=now_us, learned=LEARNED)
    until_us = to_us(console.now[0] + timedelta(minutes=30))
    statement = update(SOURCE).values(
        subscription_healthy=True,
        interval_us=300_000_000,
        account="acct_1",
        livemode=False,
        skew_us=-1_500_000,
        waiting_until_us=until_us,
        unpaid_until_us=to_us(console.now[0] + timedelta(minutes=20)),
    )
    await console.context.runtime.write(lambda c: c.execute(statement).rowcount)
    long_ago_us = to_us(console.now[0] - 20 * DAY)
    of_source = {"source_id": console.source().id, "stream_id": await console.stream_id(), "type": "x"}
    times = {"occurred_us": to_us(console.now[0]), "found_us": to_us(console.now[0]), "next_attempt_us": 0}
    await console.rows(MISSING, key="evt_6", reason="unstorable", **of_source, **times)
    await console.rows(MISSING, key="unreadable:6", reason="unreadable", **of_source, **times)
    lost = {"start_us": long_ago_us, "end_us": long_ago_us + 90_000_000, "reason": "history_exceeded"}
    await console.rows(UNRECOVERABLE, stream_id=await console.stream_id(), recorded_us=long_ago_us, **lost)


async def test_totals_equal_what_was_recorded(console: Any) -> None:
    await fill(console)
    values = await scraped(console)
    expected: dict[tuple[str, ...], float] = {
        ("source_info", "event_log", "hybrid", "stripe", "acme"): 1,
        ("events_total", "acme", "webhook"): 2,
        ("events_total", "acme", "list"): 2,
        ("events_total", "acme", "redelivery"): 0,
        ("events_total", "acme", "import"): 1,
        ("expected_total", "acme"): 5,
        ("missed_total", "unexplained", "acme"): 2,
        ("missed_total", "receiver_down", "acme"): 0,
        ("recovered_total", "acme"): 2,
        ("late_total", "acme"): 1,
        ("duplicates_total", "acme"): 1,
        ("gap_rate", "acme", "1h"): 0.4,
        ("window_missed", "acme", "7d"): 2,
        ("window_expected", "acme", "7d"): 5,
        ("watermark_timestamp_seconds", "acme"): (console.now[0] - timedelta(minutes=5)).timestamp(),
        ("last_complete_pass_timestamp_seconds", "acme"): console.now[0].timestamp(),
        ("unrecoverable_seconds_total", "acme"): 90,
        ("missing_open", "acme"): 2,
        ("unreadable_rows", "acme"): 1,
        ("provider_grant_used_ratio", "acme"): 0.23,
        ("grant_short", "acme"): 0,
        ("planned_recovery_seconds", "0.5", "acme"): 40,
        ("planned_recovery_seconds", "0.99", "acme"): 290,
        ("reading_unpaid_until_timestamp_seconds", "acme"): (console.now[0] + timedelta(minutes=20)).timestamp(),
        ("poll_interval_seconds", "acme"): 300,
        ("grace_seconds", "acme"): LEARNED.grace_s,
        ("provider_waits_until_timestamp_seconds", "acme"): (console.now[0] + timedelta(minutes=30)).timestamp(),
        ("subscription_healthy", "acme"): 1,
        ("clock_skew_seconds", "acme"): -1.5,
        ("delivery_backlog", "shop", "pending"): 5,
        ("delivery_backlog", "shop", "dead"): 0,
        ("oldest_pending_timestamp_seconds", "shop"): console.now[0].timestamp(),
        ("dead_letters", "shop", "timeout"): 0,
        ("unconfirmed_deliveries", "shop"): 1,
        ("oldest_unconfirmed_timestamp_seconds", "shop"): console.now[0].timestamp() - 7,
        ("ledger_readable",): 1,
    }
    assert {key: values.get(key) for key in expected} == expected


async def test_of_an_idle_new_source_only_what_is_known_has_a_value(console: Any) -> None:
    names = {key[0] for key in await scraped(console)}
    unknown = {
        "gap_rate", "window_missed", "window_expected", "watermark_timestamp_seconds", "subscription_healthy",
        "complete_up_to_timestamp_seconds", "last_complete_pass_timestamp_seconds", "grant_short",
        "poll_interval_seconds", "clock_skew_seconds", "oldest_pending_timestamp_seconds",
        "provider_waits_until_timestamp_seconds", "provider_grant_used_ratio", "planned_recovery_seconds",
        "reading_unpaid_until_timestamp_seconds", "grace_seconds",
    }  # fmt: skip
    assert names & unknown == set()
    assert {"source_info", "missed_total", "events_total", "missing_open"} <= names


async def test_a_pause_is_absent_once_it_is_over(console: Any) -> None:
    await fill(console)
    console.now[0] += timedelta(minutes=31)
    assert ("provider_waits_until_timestamp_seconds", "acme") not in await scraped(console)


async def test_silence_needs_a_setting_and_a_known_last_webhook(console: Any) -> None:
    async def silent() -> float | None:
        return (await scraped(console)).get(("source_silent", "acme"))

    await console.record(Via.WEBHOOK, "evt_1")
    assert await silent() is None
    console.context.sources.change("acme", silence=Silence(after=timedelta(hours=2)))
    heard = {console.source().id: to_us(console.now[0])}
    await console.context.runtime.write(lambda c: silence.note_heard(c, heard))
    assert await silent() == 0
    earlier = {console.source().id: to_us(console.now[0] - DAY)}
    await console.context.runtime.write(lambda c: silence.note_heard(c, earlier))
    assert await silent() == 0
    console.now[0] += timedelta(hours=3)
    assert await silent() == 1
    console.context.sources.change("acme", silence=Silence(after=None))
    assert await silent() is None


async def test_a_source_that_only_receives_has_no_series_about_losses(console: Any) -> None:
    await console.add_source("push", Mode.WEBHOOK)
    names = {key[0] for key in await scraped(console) if "push" in key}
    assert {"source_info", "events_total", "duplicates_total"} <= names
    assert names.isdisjoint(figure.name for figure in SOURCE_FIGURES if "mode" in figure.absent)


async def test_the_same_is_read_by_a_process_that_has_just_started(console: Any) -> None:
    await fill(console)
    before = render(Metrics("1"), LedgerCollector(await read_status(console)), "")[0]
    assert render(Metrics("1"), LedgerCollector(await read_status(console)), "")[0] == before


async def test_metrics_without_a_store_keep_the_process_series(console: Any, listen: Any) -> None:
    class Unreachable:
        async def read(self, _: object) -> None:
            raise StoreUnavailable("gone")

    console.use(store=Unreachable())
    async with listen() as client:
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert "gapless_ledger_readable 0.0" in answer.text
        assert 'gapless_build_info{version="1.2.3"} 1.0' in answer.text
        assert "gapless_source_info" not in answer.text
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/api/status")).status_code == 503


async def test_without_the_role_console_there_are_no_ledger_series(listen: Any) -> None:
    async with listen(roles=frozenset({"receive"})) as client:
        text = (await client.get("/metrics")).text
        assert "gapless_recorder_queue" in text
        assert "gapless_source_info" not in text
        assert "gapless_ledger_readable" not in text
        assert (await client.get("/api/status")).status_code == 404
        assert (await client.get("/")).status_code == 404


async def test_openmetrics_is_spoken_to_who_asks_for_it(listen: Any) -> None:
    async with listen() as client:
        accept = {"accept": "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.3"}
        answer = await client.get("/metrics", headers=accept)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
        assert "_created" not in answer.text


async def test_the_table_names_every_series_with_its_type_and_labels(console: Any) -> None:
    await fill(console)
    touch(console.metrics, "acme", "shop")
    found = {}
    for family in AllSeries(console.metrics.registry, LedgerCollector(await read_status(console))).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = next((tuple(sample.labels) for sample in family.samples if "le" not in sample.labels), None)
        assert labels is not None, f"{name} has no sample here"
        found[name] = Documented(family.type, labels)
    assert found == documented()


def test_alert_rules_use_only_series_and_labels_of_the_table() -> None:
    known = {}
    for name, row in documented().items():
        parts = ("_bucket", "_count", "_sum") if row.kind == "histogram" else ("",)
        known |= {name + part: Documented(row.kind, (*row.labels, "le") if part else row.labels) for part in parts}
    rules = RULES.read_text() + LEVELS.read_text()
    used = re.findall(r"\b(gapless_[a-z_]+)(?:\{([^}]*)\})?", re.sub(r"(?m)^ *(#|description:|summary:).*$", "", rules))
    assert {name for name, _ in used} <= known.keys()
    assert len({name for name, _ in used}) > 12
    for name, selector in used:
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selector)) <= set(known[name].labels)


def touch(metrics: Metrics, source: str, destination: str) -> None:
    """Use every possible value of every label."""
    for outcome in Outcome:
        metrics.webhooks.labels(source, outcome.value)
    for reason in REASONS:
        metrics.refused.labels(source, reason)
    for kept in ("kept", "dropped"):
        metrics.quarantined.labels(source, kept)
    metrics.record_delay.labels(source, Via.WEBHOOK.value)  # in mode `poll` by list instead
    for via in (Via.LIST, Via.REDELIVERY):
        metrics.recovery.labels(source, via.value)
    for made in (
        "clean", "found", "contradicted", "suspect_listing", "unexpected_shape", "credentials_rejected",
        "options_invalid", "history_expired", "account_shared", "rate_limited", "provider_unavailable", "bug",
    ):  # fmt: skip
        metrics.passes.labels(source, made)
    for kind in ("source", "missing", "delivery"):
        metrics.due_times_ahead.labels(kind)
    for status in ("2xx", "3xx", "4xx", "429", "5xx", "error"):
        metrics.provider_requests.labels(source, status)
    for histogram in (metrics.webhook_seconds, metrics.pass_seconds):
        histogram.labels(source)
    for result in OUTCOMES:
        metrics.deliveries.labels(destination, result)
    metrics.delivery_seconds.labels(destination)
    metrics.first_attempt.labels(destination)
    touch_listeners(metrics)
    metrics.circuit_open.labels(destination)
    metrics.receipts_late.labels(destination)


def touch_listeners(metrics: Metrics) -> None:
    """Use every label of what is counted of connections."""
    for listener in ("public", "private"):
        Connections(listener, metrics)
    for closing in (*(each.label for each in Closing), "gone", "full"):
        metrics.stream_closed.labels(closing)


async def test_a_source_has_at_most_160_series_and_a_destination_80(console: Any) -> None:
    await fill(console)
    touch(console.metrics, "acme", "shop")
    keys = list(await scraped(console))
    of_source = [key for key in keys if "acme" in key]
    of_destination = [key for key in keys if "shop" in key]
    assert 100 < len(of_source) <= 160
    assert len(FailureReason) < len(of_destination) <= 80


def binary(name: str, absent: Absent) -> str:
    return shutil.which(name) or absent("prometheus", f"{name} is not on the PATH")


@asynccontextmanager
async def scraping(target: str, folder: Path, absent: Absent) -> AsyncIterator[httpx.AsyncClient]:
    """A Prometheus that scrapes `target`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = f"{{job_name: gapless, static_configs: [{{targets: ['{target}']}}]}}"
    config = folder / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 1s}}\nrule_files: ['{RULES}']\nscrape_configs: [{job}]\n")
    process = await asyncio.create_subprocess_exec(
        binary("prometheus", absent),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def series_in(prometheus: httpx.AsyncClient) -> set[str]:
    """The names of all series that Prometheus has of us."""
    try:
        answer = await prometheus.get("/api/v1/label/__name__/values")
    except httpx.TransportError:
        return set()
    if answer.status_code != 200:  # it is still starting
        return set()
    return {name for name in answer.json()["data"] if name.startswith("gapless_")}


async def test_a_real_prometheus_finds_every_series_of_the_table(
    console: Any, listen: Any, tmp_path: Path, absent: Absent
) -> None:
    await fill(console)
    touch(console.metrics, "acme", "shop")
    wanted = {name + "_bucket" if row.kind == "histogram" else name for name, row in documented().items()}
    async with listen() as listener, scraping(listener.base_url.netloc.decode(), tmp_path, absent) as prometheus:
        found: set[str] = set()
        for _ in range(120):
            found = await series_in(prometheus)
            if wanted <= found:
                break
            await asyncio.sleep(0.25)
        assert wanted - found == set()
        rate = (await prometheus.get("/api/v1/query", params={"query": 'gapless_gap_rate{window="1h"}'})).json()
        assert [row["value"][1] for row in rate["data"]["result"]] == ["0.4"]
        rules = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
        assert [rule["health"] for group in rules for rule in group["rules"] if rule["health"] == "err"] == []


@pytest.mark.parametrize(("rules", "made_up"), [(RULES, "alert_cases.yml"), (LEVELS, "slo_cases.yml")])
def test_the_alert_rules_fire_when_they_should_and_only_then(
    absent: Absent, tmp_path: Path, rules: Path, made_up: str
) -> None:
    promtool = binary("promtool", absent)
    cases = tmp_path / "cases.yml"
    cases.write_text((Path(__file__).parent / made_up).read_text().replace("[RULES]", f"[{rules}]"))
    for command in (["check", "rules", str(rules)], ["test", "rules", str(cases)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
