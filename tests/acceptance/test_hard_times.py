"""Shutdown under load, a storm of duplicates, an unreachable database, wrong clocks, forged webhooks."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy.engine import make_url

from gapless.ledger import leases, sources, streams, tallies
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_shutdown_under_load_keeps_all_acknowledged_events(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, store_url, api, consumer)) as daemon:
            endpoint = fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            for _ in range(400):
                fake.emit("invoice.paid")
            await until(lambda: any(push.status == 200 for push in fake.pushes), every_s=0.01)
            code = await asyncio.wait_for(daemon.end(), 60)
            endpoint.enabled = False
            acknowledged = {push.event.key for push in fake.pushes if push.status == 200}

            assert code == 0
            assert acknowledged
            assert acknowledged <= await daemon.ledger_ids()
            row = await daemon.read(lambda connection: sources.source_row(connection, 1))
            assert row["lease_holder"] is None
            assert await daemon.read(lambda connection: leases.downtimes(connection, 0, 1 << 62)) == []


async def test_a_storm_of_one_event_is_one_row_and_one_delivery(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, store_url, api, consumer)) as daemon:
            await asyncio.sleep(1.1)
            event = fake.emit("invoice.paid")
            endpoint = fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            message = fake.vendor_format.message(event, endpoint, datetime.now(UTC), genuine=True)
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

                async def post_fifty_times() -> set[int]:
                    posted = [
                        await client.post(daemon.public, content=message.body, headers=message.headers)
                        for _ in range(50)
                    ]
                    return {response.status_code for response in posted}

                statuses = set[int]().union(*await asyncio.gather(*(post_fifty_times() for _ in range(60))))
            await until(lambda: event.key in consumer.ids)
            await asyncio.sleep(1)

            assert statuses == {200}
            assert await daemon.ledger_ids() == {event.key}
            assert consumer.got == {event.key: consumer.got[event.key][:1]}
            counts = (await daemon.read(lambda connection: tallies.totals(connection, 1))).counts
            assert (counts["by_webhook"], counts["duplicates"]) == (1, 2999)


async def test_webhooks_get_503_only_while_the_database_is_away(
    postgres_url: str, postgres_server: str, tmp_path: Path
) -> None:
    fake, name = FakeProvider(StripeFormat(), retries_s=(1.0,) * 20), make_url(postgres_url).database
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, postgres_url, api, consumer)) as daemon:
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            await run_sql(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await run_sql(
                postgres_server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            for _ in range(30):
                fake.emit("invoice.paid")
            await until(lambda: any(push.status == 503 for push in fake.pushes))
            await run_sql(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            truth = {event.key for event in fake.events}
            await until(lambda: truth <= consumer.ids)

            assert await daemon.ledger_ids() == truth
            assert consumer.changed_ids == {}


@pytest.mark.parametrize("skew", [timedelta(minutes=-10), timedelta(minutes=10)], ids=["behind", "ahead"])
async def test_a_provider_whose_clock_is_wrong_loses_nothing(skew: timedelta, sqlite_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), clock=lambda: datetime.now(UTC) + skew)
    fake.faults.drop = 0.5
    start = (datetime.now(UTC) - timedelta(minutes=15)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, sqlite_url, api, consumer, source=f"start = {start}", options='tolerance = "1h"')
        async with running(daemon):
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            for _ in range(40):
                fake.emit("invoice.paid")
                await asyncio.sleep(0.02)
            await fake.settle()
            pushed = {push.event.key for push in fake.pushes if push.status == 200}
            await until(lambda: pushed <= consumer.ids)
            (stream,) = await daemon.read(lambda connection: streams.streams(connection, 1))
            theirs = int((datetime.now(UTC) + skew).timestamp() * 1_000_000)
            assert stream.watermark_us <= theirs
            if skew < timedelta(0):
                truth = {event.key for event in fake.events}
                await until(lambda: truth <= consumer.ids)


async def test_forged_webhooks_leave_no_event_and_stop_no_genuine_one(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, store_url, api, consumer)) as daemon:
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                headers = {"stripe-signature": f"t=1700000000,v1={secrets.token_hex(32)}"}
                forged = [
                    client.post(daemon.public, content=b'{"id":"evt_forged"}', headers=headers) for _ in range(300)
                ]
                genuine = fake.emit("invoice.paid")
                statuses = {response.status_code for response in await asyncio.gather(*forged)}
            await until(lambda: genuine.key in consumer.ids)

            assert statuses == {401}
            assert await daemon.ledger_ids() == {genuine.key}
