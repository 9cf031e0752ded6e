"""Every alert fires and resolves, by a real Prometheus and a real Alertmanager, on the right one of two installations.

Real daemons with real faults come first: those of `REAL`. The others need hours, or a vendor's misbehaviour: their
series are served by a small exporter, under the names that the daemon has.
"""

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from alerting import CONFIG, Absent, Alerts, alerting, serving
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy.engine import make_url

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
EVERY = set(re.findall(r"- alert: (\w+)", "".join(path.read_text() for path in (CONFIG / "prometheus").glob("*.yml"))))
PAGES = set(
    re.findall(
        r"- alert: (\w+)\n(?:(?! *- alert).*\n)*?        labels: \{ severity: page \}",
        "".join(path.read_text() for path in (CONFIG / "prometheus").glob("*.yml")),
    )
)
REAL = {
    "GaplessDown", "GaplessAbsent", "GaplessGapFound", "GaplessCredentialsRejected", "GaplessDeadLetters",
    "GaplessWatermarkStalled", "GaplessRefusingMany", "GaplessDeliveriesOld", "GaplessLedgerNotWritable",
}  # fmt: skip
"""Caused by a real fault of a real daemon."""

COMMON = """\
gapless_build_info{version="1"} 1
"""
SERIES = {  # alert: (while all is well, while it is not); now: the time, n: rises in the fault, r: always rises
    "GaplessLedgerUnreadable": ("gapless_ledger_readable 1", "gapless_ledger_readable 0"),
    "GaplessLedgerNotWritable": ("gapless_ledger_writable 1", "gapless_ledger_writable 0"),
    "GaplessAcceptedBurns": ('gapless_missed_total{S,cause="refused"} <n>\ngapless_expected_total{S} <r>', None),
    "GaplessSloBurns": (
        ('gapless_delivery_seconds_bucket{D,le="60.0"} <r>\ngapless_delivery_seconds_count{D} <r+n>\n'
        'gapless_deliveries_total{D,outcome="dead"} 0'),
        None,
    ),
    "GaplessEventsStillMissing": (
        "gapless_missing_open{S} 0\ngapless_unreadable_rows{S} 0",
        "gapless_missing_open{S} 2\ngapless_unreadable_rows{S} 0",
    ),
    "GaplessRowsUnreadable": ("gapless_unreadable_rows{S} 0", "gapless_unreadable_rows{S} 1"),
    "GaplessFoundBehindWatermark": ("gapless_found_behind_watermark_total{S} <n>", None),
    "GaplessWatermarkStalled": (
        "gapless_poll_interval_seconds{S} 300\ngapless_watermark_timestamp_seconds{S} <now>",
        ("gapless_poll_interval_seconds{S} 300\ngapless_watermark_timestamp_seconds{S} <now-9000>\n"
        "gapless_source_silent{S} 1"),
    ),
    "GaplessNeverCompared": (
        'gapless_source_info{S,coverage="event_log",mode="poll"} 1\ngapless_watermark_timestamp_seconds{S} <now>',
        'gapless_source_info{S,coverage="event_log",mode="poll"} 1',
    ),
    "GaplessGapRateUnknown": (
        ('gapless_source_info{S,coverage="event_log",mode="hybrid"} 1\ngapless_watermark_timestamp_seconds{S} <now>\n'
        'gapless_window_expected{S,window="24h"} 7'),
        'gapless_source_info{S,coverage="event_log",mode="hybrid"} 1\ngapless_watermark_timestamp_seconds{S} <now>',
    ),
    "GaplessOtherAccount": ("gapless_source_other_account{S} 0", "gapless_source_other_account{S} 1"),
    "GaplessListNotBelieved": (
        'gapless_streams{S,outcome="clean"} 1', 'gapless_streams{S,outcome="suspect_listing"} 1',
    ),
    "GaplessProviderWaits": ("", "gapless_provider_waits_until_timestamp_seconds{S} <now+2000>"),
    "GaplessListContradicted": ("gapless_contradicting_events{S} 0", "gapless_contradicting_events{S} 1"),
    "GaplessHistoryRunsOut": (
        "gapless_history_headroom_seconds{S} 9000\ngapless_watermark_timestamp_seconds{S} <now-10>",
        "gapless_history_headroom_seconds{S} 9\ngapless_watermark_timestamp_seconds{S} <now-3000>",
    ),
    "GaplessGrantNearlyUsed": ("gapless_provider_grant_used_ratio{S} 0.4", "gapless_provider_grant_used_ratio{S} 0.95"),
    "GaplessHistoryTight": (
        ("gapless_history_headroom_seconds{S} 9000\ngapless_watermark_timestamp_seconds{S} <now-10>\n"
        "gapless_poll_interval_seconds{S} 300"),
        ("gapless_history_headroom_seconds{S} 9000\ngapless_watermark_timestamp_seconds{S} <now-10>\n"
        "gapless_poll_interval_seconds{S} 8000"),
    ),
    "GaplessGrantShort": ("gapless_grant_short{S} 0", "gapless_grant_short{S} 1"),
    "GaplessReadingPutOff": ("", "gapless_reading_unpaid_until_timestamp_seconds{S} <now+2000>"),
    "GaplessUnrecoverable": ("gapless_unrecoverable_seconds_total{S} <n>", None),
    "GaplessSubscriptionUnhealthy": ("gapless_subscription_healthy{S} 1", "gapless_subscription_healthy{S} 0"),
    "GaplessClockWrong": ("gapless_clock_skew_seconds{S} 1", "gapless_clock_skew_seconds{S} -70"),
    "GaplessReplicaClockWrong": ("gapless_clock_offset_seconds 0", "gapless_clock_offset_seconds 70"),
    "GaplessDueTimesAhead": ('gapless_due_times_ahead_total{kind="source"} <n>', None),
    "GaplessSilent": ("gapless_source_silent{S} 0", "gapless_source_silent{S} 1"),
    "GaplessRefusingMany": (
        'gapless_webhooks_total{S,outcome="refused"} <n>\ngapless_webhooks_total{S,outcome="accepted"} <r>', None,
    ),
    "GaplessReceiverUnavailable": ('gapless_webhooks_total{S,outcome="unavailable"} <n>', None),
    "GaplessHeldDeliveries": (
        'gapless_delivery_backlog{D,state="held"} 0', 'gapless_delivery_backlog{D,state="held"} 3',
    ),
    "GaplessDeliveriesOld": (
        "gapless_destination_paused{D} 0",
        "gapless_destination_paused{D} 0\ngapless_oldest_pending_timestamp_seconds{D} 7",
    ),
}  # fmt: skip


class Exporter:
    """Serves the series of two installations. Only the one at /live has the faults."""

    def __init__(self) -> None:
        self.is_faulty = False
        self.risen = 0
        self.scrapes = 0

    def series(self, path: str) -> str:
        """What a scrape gets; each alert has a source and a destination of its own."""
        is_faulty = self.is_faulty and path == "live"
        numbers = {"r": self.scrapes * 100, "n": self.risen * 50 if path == "live" else 0}
        numbers["r+n"] = numbers["r"] + numbers["n"]

        def value(match: re.Match[str]) -> str:
            place = match[1]
            if place in numbers:
                return str(numbers[place])
            return str(time.time() + float(place.removeprefix("now") or 0))

        lines = [COMMON]
        for alert, (well, ill) in SERIES.items():
            text = ill if is_faulty and ill is not None else well
            text = text.replace("{S", f'{{source="{alert}"').replace("{D", f'{{destination="{alert}"')
            lines.append(re.sub(r"<([^>]+)>", value, text) + "\n")
        return "".join(lines)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a scrape."""
        self.scrapes += 1
        self.risen += self.is_faulty
        return web.Response(text=self.series(request.path.strip("/")))


def test_every_alert_is_caused_here() -> None:
    assert set(SERIES) | REAL == EVERY
    assert PAGES < EVERY


async def test_every_alert_fires_and_resolves_and_a_stalled_proof_is_told_once(tmp_path: Path, absent: Absent) -> None:
    exporter = Exporter()
    async with serving(web.get("/{name}", exporter.answer)) as address:
        targets = {"live": f"{address}/live", "staging": f"{address}/staging"}
        async with alerting(targets, tmp_path, absent) as alerts:
            await until(lambda: exporter.scrapes > 12)
            assert alerts.ever == set()
            exporter.is_faulty = True
            await until(lambda: set(SERIES) <= alerts.firing(), within_s=90)
            assert "GaplessSilent" in await alerts.inhibited()
            assert not any(
                name == "GaplessSilent" and whose == "GaplessWatermarkStalled" for _, name, _, whose in alerts.ever
            )
            exporter.is_faulty = False
            await until(lambda: not alerts.firing(), within_s=120)
            assert {cluster for _, _, cluster, _ in alerts.ever} == {"live"}
            assert {(receiver, name in PAGES) for receiver, name, _, _ in alerts.ever} == {
                ("pager", True), ("tickets", False),
            }  # fmt: skip


async def faults(live: Gapless, fake: FakeProvider, consumer: Consumer) -> AsyncIterator[set[str]]:
    """Make one fault after the other. Yield the alerts that are to fire while each lasts."""
    fake.faults.drop = 1.0
    fake.emit("invoice.paid")
    yield {"GaplessGapFound"}
    fake.faults.drop = 0.0

    fake.faults.key_revoked = True
    yield {"GaplessCredentialsRejected"}
    fake.faults.key_revoked = False
    await live.call("source", "pass", "stripe-live")

    fake.faults.outage = True
    yield {"GaplessWatermarkStalled"}
    fake.faults.outage = False

    fake.faults.bad_signature = 1.0
    for _ in range(40):
        fake.emit("invoice.paid")
    yield {"GaplessRefusingMany"}
    fake.faults.bad_signature = 0.0

    consumer.answers = lambda _key: 500
    fake.emit("invoice.paid")
    yield {"GaplessDeliveriesOld"}
    consumer.answers = lambda _key: 200

    consumer.answers = lambda _key: 410
    fake.emit("invoice.paid")
    yield {"GaplessDeadLetters"}
    consumer.answers = lambda _key: 200
    await live.call("dead", "requeue", "--destination", "consumer", "--yes")

    with closing(sqlite3.connect(make_url(live.store_url).database or "", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield {"GaplessLedgerNotWritable"}
        other.execute("ROLLBACK")

    await live.kill()
    yield {"GaplessDown", "GaplessAbsent"}
    await live.start()


async def is_scraped(alerts: Alerts, count: int) -> bool:
    """Prometheus has the watermark of so many installations."""
    try:
        return len(await alerts.query("gapless_watermark_timestamp_seconds")) == count
    except (httpx.TransportError, ValueError):  # it is still starting
        return False


async def empty_panels(alerts: Alerts) -> list[str]:
    """The panels of the dashboards whose query returns nothing, for all and for the one source and destination."""
    empty = []
    for path in sorted((CONFIG / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            expr = panel["targets"][0]["expr"].replace("$__rate_interval", "5m")
            for values in ({"cluster": "live", "source": "stripe-live", "destination": "consumer"}, {}):
                asked = re.sub(r"\$(\w+)", lambda match, own=values: own.get(match[1], ".*"), expr)  # type: ignore[misc]
                if not await alerts.query(asked):
                    empty.append(f"{path.stem}: {panel['title']}: {asked}")
    return empty


async def test_faults_of_a_real_daemon_are_told_and_end(tmp_path: Path, absent: Absent) -> None:
    """Beside another one of the same source and destination, which has none. Every panel shows what happened."""
    consumers, fakes, daemons = [Consumer(), Consumer()], [], []
    async with AsyncExitStack() as stack:
        for name, consumer in zip(("live", "staging"), consumers, strict=True):
            (tmp_path / name).mkdir()
            await stack.enter_async_context(consumer.serve())
            fakes.append(FakeProvider(StripeFormat(), retries_s=()))
            api = await stack.enter_async_context(fakes[-1].serve())
            url = f"sqlite:///{tmp_path / name / 'ledger.db'}"
            daemons.append(
                await stack.enter_async_context(running(Gapless(tmp_path / name, url, api, consumer, grace="5s")))
            )
            fakes[-1].add_endpoint(daemons[-1].public, secret=WEBHOOK_SECRET)
            fakes[-1].emit("invoice.paid")
        targets = {
            name: f"127.0.0.1:{each.private_port}/metrics"
            for name, each in zip(("live", "staging"), daemons, strict=True)
        }
        alerts = await stack.enter_async_context(alerting(targets, tmp_path, absent))
        await until(lambda: is_scraped(alerts, 2))
        caused: set[str] = set()
        async for expected in faults(daemons[0], fakes[0], consumers[0]):
            caused |= expected
            await until(lambda wanted=expected: wanted <= alerts.firing(), within_s=60)
            fakes[1].emit("invoice.paid")
        assert caused == REAL
        await until(lambda: not REAL & alerts.firing(), within_s=90)
        await until_full(alerts, fakes[0])
        assert {(name, cluster) for _, name, cluster, _ in alerts.ever if name in REAL} == {
            (each, "live") for each in REAL
        }


async def until_full(alerts: Alerts, fake: FakeProvider) -> None:
    """Let events come until every panel has data; fail with those that have none."""
    deadline = time.monotonic() + 60
    while (empty := await empty_panels(alerts)) and time.monotonic() < deadline:
        fake.emit("invoice.paid")
        await asyncio.sleep(1)
    assert not empty, "\n".join(empty)
