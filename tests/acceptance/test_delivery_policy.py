"""The policy of deliveries in a whole process: a pause by a command, and thin events with their data."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
HYDRATE = {"GAPLESS_DESTINATION__CONSUMER__HYDRATE": "true"}


@dataclass
class Keeping(Consumer):
    """It keeps what it got, by the event's id."""

    kept: dict[str, Any] = field(default_factory=dict)

    def key_of(self, body: bytes) -> str:
        key = super().key_of(body)
        self.kept[key] = json.loads(body)
        return key


async def test_a_daemon_heeds_a_pause_and_fetches_thin_events(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    consumer = Keeping()
    async with consumer.serve(), fake.serve() as api:
        gapless = Gapless(tmp_path, store_url, api, consumer, environment=HYDRATE)
        async with running(gapless):
            fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
            thin = fake.emit("v2.core.account.closed")
            await until(lambda: thin.key in consumer.ids)
            assert consumer.kept[thin.key]["data"] == {"of": thin.object_id}

            code, _, err = await gapless.call("destination", "pause", "consumer", "--reason", "upgrade")
            assert code == 0, err
            await asyncio.sleep(2)  # the time in which every process heeds it
            waits = fake.emit("invoice.paid")
            code, out, err = await gapless.call("status")
            assert "(upgrade); " in out, err
            await asyncio.sleep(2)
            assert waits.key not in consumer.ids
        async with running(gapless):  # the pause outlasts a restart
            await asyncio.sleep(2)
            assert waits.key not in consumer.ids
            code, _, err = await gapless.call("destination", "resume", "consumer")
            assert code == 0, err
            await until(lambda: waits.key in consumer.ids)
