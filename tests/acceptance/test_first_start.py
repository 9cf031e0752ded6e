"""A first start is safe: history is not delivered, imports are not repeated, other types are not missed."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
RATE_1H = (("source", "stripe-live"), ("window", "1h"))


def passes(daemon: Gapless, outcome: str = "clean") -> Callable[[], Awaitable[float]]:
    async def counted() -> float:
        found = (await daemon.metrics())["gapless_pass_total"]
        return found.get((("outcome", outcome), ("source", "stripe-live")), 0)

    return counted


async def test_a_first_start_delivers_no_history(store_url: str, tmp_path: Path) -> None:
    fake, now = FakeProvider(StripeFormat()), datetime.now(UTC)
    fake.backfill(3000, now - timedelta(days=29), now - timedelta(minutes=1), ["invoice.paid", "charge.succeeded"])
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, store_url, api, consumer)) as daemon:
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            await asyncio.sleep(1.1)
            first = fake.emit("invoice.paid")
            await until(lambda: first.key in consumer.ids)
            await until(passes(daemon))

            assert consumer.ids == {first.key}
            assert await daemon.ledger_ids() == {first.key}
            assert await daemon.missed() == 0


async def test_imported_events_are_not_delivered_again(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, store_url, api, consumer, source=f"start = {_ago(minutes=5)}")
        processed = [fake.emit("invoice.paid", occurred_at=datetime.now(UTC) - timedelta(seconds=9)) for _ in range(50)]
        lines = "\n".join(json.dumps({"id": event.key, "type": event.type}) for event in processed)
        code, out, err = await daemon.call("import", "stripe-live", "-", stdin=lines)
        assert (code, out.strip()) == (0, "50 new, 0 known already"), err
        async with running(daemon), httpx.AsyncClient(trust_env=False, timeout=60) as client:
            code, out, err = await daemon.call("import", "stripe-live", "-", stdin=lines)
            assert (code, out.strip()) == (0, "0 new, 50 known already"), err
            endpoint = fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            for event in processed[:25]:  # fronted: the provider sends some of them again
                message = fake.vendor_format.message(event, endpoint, datetime.now(UTC), genuine=True)
                answer = await client.post(daemon.public, content=message.body, headers=dict(message.headers))
                assert answer.status_code == 200
            fresh = [fake.emit("invoice.paid") for _ in range(20)]
            await fake.settle()
            await until(lambda: {event.key for event in fresh} <= consumer.ids)
            await until(passes(daemon))

            seen = {event.key for event in processed}
            assert not consumer.ids & seen
            assert await daemon.missed() == 0
            assert all(len(marks) == 1 for marks in consumer.got.values())
            assert await daemon.ledger_ids() == seen | {event.key for event in fresh}


async def test_other_types_than_the_subscribed_are_not_missed(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, store_url, api, consumer)
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET, types=("invoice.*",))
        async with running(daemon):
            wanted = set()
            for number in range(100):
                event = fake.emit("invoice.paid" if number % 10 == 0 else "charge.succeeded")
                wanted |= {event.key} if event.type == "invoice.paid" else set()
                await asyncio.sleep(0.01)
            await fake.settle()
            await asyncio.sleep(2)
            await until(lambda: wanted <= consumer.ids)
            await until(passes(daemon))

            assert await daemon.ledger_ids() == wanted
            assert consumer.ids == wanted
            assert await daemon.missed() == 0


async def test_a_revoked_key_makes_the_gap_rate_absent_and_never_zero(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, store_url, api, consumer)) as daemon:
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            fake.emit("invoice.paid")

            async def rate() -> float | None:
                return (await daemon.metrics())["gapless_gap_rate"].get(RATE_1H)

            async def known() -> bool:
                return await rate() == 0.0

            async def unknown() -> bool:
                return await rate() is None

            await until(known)
            fake.faults.key_revoked = True
            await until(unknown)
            for _ in range(10):
                fake.emit("invoice.paid")
                assert await rate() is None
            assert (await daemon.metrics())["gapless_source_info"]
            fake.faults.key_revoked = False
            await until(known)


def _ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")
