"""A consumer that answers 2xx and then forgets events ends with all of them applied: the real process, killed once."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy import select

from gapless.ledger import Connection
from gapless.ledger.tables import DELIVERY
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
EVENTS = 200
NEEDS_RECEIPTS = {
    "GAPLESS_DESTINATION__CONSUMER__CONFIRM": "receipt",
    "GAPLESS_DESTINATION__CONSUMER__RECEIPT_WITHIN": "2s",
    "GAPLESS_DESTINATION__CONSUMER__RECEIPT_ATTEMPTS": "50",
    "GAPLESS_DESTINATION__CONSUMER__TIMEOUT": "1s",  # a killed process's leases last longer by 20 s
    "GAPLESS_PRIVATE__CONSUMER_TOKEN_ENV": "CONSUMER_TOKEN",
    "CONSUMER_TOKEN": "of-the-consumer-" + "x" * 32,
}


@dataclass
class Forgetful(Consumer):
    """Takes each event with 200, forgets every twentieth, and applies the others later, when its job runs."""

    queue: list[str] = field(default_factory=list)
    applied: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    def take(self, key: str) -> int:
        """Answer 200 and put the event into the queue, unless it is forgotten."""
        if len(self.got) % 20 == 0 and key not in self.forgotten | self.applied:
            self.forgotten.add(key)
        else:
            self.queue.append(key)
        return 200

    async def work(self, daemon: Gapless) -> None:
        """The job: apply what is queued, then say so; what cannot be said stays queued."""
        body = {"destination": "consumer", "source": "stripe-live"}
        token = {"authorization": f"Bearer {NEEDS_RECEIPTS['CONSUMER_TOKEN']}"}
        async with httpx.AsyncClient(trust_env=False, headers=token) as client:
            while True:
                await asyncio.sleep(0.1)
                keys = self.queue[:50]
                self.applied.update(keys)
                with suppress(httpx.TransportError):
                    sent = keys and await client.post(f"{daemon.private}/api/v1/receipts", json={**body, "keys": keys})
                    if sent and sent.is_success:
                        del self.queue[: len(keys)]


@pytest.mark.parametrize("store_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_consumer_that_forgets_ends_with_everything_applied(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), retries_s=(0.5, 1.0, 2.0))
    start = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with Forgetful().serve() as consumer, fake.serve() as api:
        assert isinstance(consumer, Forgetful)
        consumer.answers = consumer.take
        settings = f"start = {start}"
        daemon = Gapless(tmp_path, store_url, api, consumer, source=settings, environment=NEEDS_RECEIPTS)
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        async with running(daemon):
            job = asyncio.create_task(consumer.work(daemon))
            truth = {fake.emit("invoice.paid").key for _ in range(EVENTS)}
            await until(lambda: len(consumer.applied) > EVENTS // 3)
            await daemon.kill()
            await daemon.start()
            await until(lambda: consumer.applied >= truth)
            await until(lambda: _settled(daemon, len(truth)))
            job.cancel()
        assert consumer.applied == consumer.ids == truth
        assert len(consumer.forgotten) >= EVENTS // 40
        assert all(len(consumer.got[key]) > 1 for key in consumer.forgotten)
        assert consumer.changed_ids == {}


async def _settled(daemon: Gapless, count: int) -> bool:
    """Whether every event is delivered, and every delivery has its receipt."""

    def rows(connection: Connection) -> list[tuple[str, int | None]]:
        return [tuple(row) for row in connection.execute(select(DELIVERY.c.state, DELIVERY.c.applied_us))]

    found = await daemon.read(rows)
    return len(found) == count and all(state == "delivered" and applied is not None for state, applied in found)
