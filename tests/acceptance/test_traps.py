"""Known bugs of other projects that show only in a whole process. Each test names the project."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy.engine import make_url

from gapless.domain import from_us
from gapless.ledger import streams
from gapless.ledger.streams import Stream
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
LOOKBACK = timedelta(minutes=1)


async def test_trap_hookaido_a_webhook_is_accepted_after_503(
    postgres_url: str, postgres_server: str, tmp_path: Path
) -> None:
    fake, name = FakeProvider(StripeFormat()), make_url(postgres_url).database
    async with (
        Consumer().serve() as consumer,
        fake.serve() as api,
        running(Gapless(tmp_path, postgres_url, api, consumer)) as daemon,
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
    ):
        endpoint = fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        fake.faults.hidden_types = frozenset({"invoice.paid"})  # so that no list recovers it
        event = fake.emit("invoice.paid", push=False)
        message = fake.vendor_format.message(event, endpoint, datetime.now(UTC), genuine=True)
        away = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"

        async def status() -> int:
            answer = await client.post(daemon.public, content=message.body, headers=dict(message.headers))
            return answer.status_code

        async def is_taken() -> bool:
            return await status() == 200

        await run_sql(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await run_sql(postgres_server, away)
        assert await status() == 503
        await run_sql(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await until(is_taken)
        await until(lambda: event.key in consumer.ids)


async def test_trap_convoy_signatures_are_checked_before_duplicates(sqlite_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with (
        Consumer().serve() as consumer,
        fake.serve() as api,
        running(Gapless(tmp_path, sqlite_url, api, consumer)) as daemon,
        httpx.AsyncClient(trust_env=False, timeout=60) as client,
    ):
        endpoint = fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        known = fake.emit("invoice.paid")
        await until(lambda: known.key in consumer.ids)
        forged = fake.vendor_format.message(known, endpoint, datetime.now(UTC), genuine=False)
        answer = await client.post(daemon.public, content=forged.body, headers=dict(forged.headers))

        assert answer.status_code == 401
        assert sum((await daemon.metrics())["gapless_duplicates_total"].values()) == 0


async def test_trap_friendly_stripe_sync_a_refused_event_stays_owed(sqlite_url: str, tmp_path: Path) -> None:
    fake, consumer = FakeProvider(StripeFormat()), Consumer(answers=lambda _key: 500)
    fake.faults.webhooks_off = True
    async with consumer.serve(), fake.serve() as api, running(Gapless(tmp_path, sqlite_url, api, consumer)) as daemon:
        await asyncio.sleep(1.1)
        event = fake.emit("invoice.paid")

        async def has_moved_on() -> bool:
            return from_us((await _stream(daemon)).watermark_us) > event.occurred_at

        await until(lambda: event.key in consumer.ids)
        await until(has_moved_on)
        refused = len(consumer.got[event.key])
        consumer.answers = lambda _key: 200
        await until(lambda: len(consumer.got[event.key]) > refused)

        assert consumer.changed_ids == {}


async def test_trap_friendly_stripe_sync_a_poison_event_stops_none(sqlite_url: str, tmp_path: Path) -> None:
    fake, consumer = FakeProvider(StripeFormat()), Consumer()
    async with consumer.serve(), fake.serve() as api, running(Gapless(tmp_path, sqlite_url, api, consumer)) as daemon:
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        poison = fake.emit("invoice.paid", push=False)
        consumer.answers = lambda key: 500 if key == poison.key else 200
        await until(lambda: len(consumer.got[poison.key]) > 1)
        after = {fake.emit("invoice.paid").key for _ in range(50)}

        await until(lambda: after <= consumer.ids)


async def test_trap_sync_engine_a_throttled_pass_is_no_success(sqlite_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), faults=Faults(throttle_every=1, retry_after="1", webhooks_off=True))
    async with (
        Consumer().serve() as consumer,
        fake.serve() as api,
        running(Gapless(tmp_path, sqlite_url, api, consumer)) as daemon,
    ):
        before = await _stream(daemon)
        event = fake.emit("invoice.paid")
        await until(lambda: sum(request.status == 429 for request in fake.requests) >= 3)
        throttled, metrics = await _stream(daemon), await daemon.metrics()
        fake.faults.throttle_every = 0
        await until(lambda: event.key in consumer.ids)

        assert throttled.watermark_us == before.watermark_us
        assert throttled.last_complete_pass_us is None
        assert "gapless_last_complete_pass_timestamp_seconds" not in metrics
        assert not metrics["gapless_gap_rate"]


async def test_trap_outpost_an_event_without_destination_is_recorded(sqlite_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    only_invoices = {"GAPLESS_DESTINATION__CONSUMER__TYPES": '["invoice.*"]'}
    async with (
        Consumer().serve() as consumer,
        fake.serve() as api,
        running(Gapless(tmp_path, sqlite_url, api, consumer, environment=only_invoices)) as daemon,
    ):
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        unwanted, wanted = fake.emit("charge.succeeded"), fake.emit("invoice.paid")
        await fake.settle()
        await until(lambda: wanted.key in consumer.ids)

        assert await daemon.ledger_ids() == {unwanted.key, wanted.key}
        assert consumer.ids == {wanted.key}


async def test_trap_runners_lambda_a_cold_start_continues(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    start = (datetime.now(UTC) - timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fake.backfill(200, datetime.now(UTC) - timedelta(hours=5), datetime.now(UTC) - timedelta(hours=4), ["invoice.paid"])
    async with Consumer().serve() as consumer, fake.serve() as api:
        slow = {"GAPLESS_SOURCE__STRIPE_LIVE__EVERY": "10s", "GAPLESS_SOURCE__STRIPE_LIVE__EVERY_MAX": "10s"}
        daemon = Gapless(tmp_path, store_url, api, consumer, source=f"start = {start}", environment=slow)
        async with running(daemon):
            await until(lambda: len(consumer.ids) == 200)
            await until(lambda: _has_completed_a_pass(daemon))
            assert await daemon.end() == 0
            before = await _stream(daemon)
            request_count = len(fake.requests)
            lost = fake.emit("invoice.paid")
            await daemon.start()
            await until(lambda: lost.key in consumer.ids)

            listed = [each for each in fake.requests[request_count:] if each.listing]
            starts = [each.listing.query.start for each in listed if each.listing]
            assert min(start for start in starts if start) >= from_us(before.watermark_us) - LOOKBACK


async def _stream(daemon: Gapless) -> Stream:
    return (await daemon.read(lambda connection: streams.streams(connection, 1)))[0]


async def _has_completed_a_pass(daemon: Gapless) -> bool:
    return (await _stream(daemon)).last_complete_pass_us is not None
