"""A job of the real daemon: killed in the middle, it goes on; without a daemon, the command does it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless.ledger import Connection, jobs
from gapless.ledger.jobs import JobState
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]
COUNT = 1_050


async def job(daemon: Gapless, number: int) -> dict[str, Any]:
    code, out, err = await daemon.call("job", "show", str(number))
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def under_way(connection: Connection) -> int | None:
    """Return how far the first job is; None: it has ended."""
    found = jobs.find(connection, 1)
    return found.done if found is not None and found.state is JobState.RUNNING else None


async def test_a_replay_survives_kill_9_and_the_command_alone(store_url: str, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    fake = FakeProvider(StripeFormat(), seed=7)
    fake.backfill(COUNT, now - timedelta(hours=20), now - timedelta(minutes=2), ["invoice.paid"])
    start = (now - timedelta(hours=21)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, store_url, api, consumer, source=f'start = {start}\ntypes = ["*"]')
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        replay = ("event", "replay", "--since", "1d", "--destination", "consumer", "--yes")
        async with running(daemon):
            await until(lambda: len(consumer.ids) == COUNT)
            code, out, err = await daemon.call(*replay, "--rate", "120", "--note", "a test")
            assert (code, "job 1 does it" in out) == (0, True), err
            killed_at: list[int] = []
            while (stored := await daemon.read(under_way)) is not None:
                await asyncio.sleep(0.2)
                if len(killed_at) < 3 and stored > (killed_at or [0])[-1]:
                    await daemon.kill()
                    killed_at.append(stored)
                    await daemon.start()
            shown = await job(daemon, 1)
            assert (shown["state"], shown["done"], shown["left_out"], shown["reason"]) == (
                "finished",
                COUNT,
                0,
                "a test",
            )
            assert killed_at, shown
            await until(lambda: all(len(marks) >= 2 for marks in consumer.got.values()))
            assert consumer.changed_ids == {}
        code, out, err = await daemon.call(*replay, "--rate", "10000")
        assert code == 0, err
        if store_url.startswith("postgresql"):  # there it is left to the daemons
            code, out, err = await daemon.call("job", "run", "2")
        assert f"job 2 finished: {COUNT} done, 0 left out" in out
