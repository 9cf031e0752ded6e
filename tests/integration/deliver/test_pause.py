"""A paused destination: nothing is sent to it, and nothing that it is owed is lost."""

import asyncio
import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gapless.bootstrap.runtime import open_runtime
from gapless.cli.main import main
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.worker import AHEAD_MAX
from gapless.destinations.contract import Delivered, Delivery, Result
from gapless.domain import system_clock, to_us
from gapless.ledger import deliveries, destinations
from gapless.ledger.destinations import Pause
from gapless.ledger.engine import Store
from gapless.settings import load

pytestmark = pytest.mark.anyio
PAUSE = Pause(since_us=to_us(system_clock()), by="ann", reason="upgrade")


async def pause(setup: Any) -> None:
    await setup.store.write(destinations.pause, destination_id=setup.destination_id, pause=PAUSE)


async def resume(setup: Any) -> None:
    now_us = to_us(system_clock())
    await setup.store.write(destinations.resume, destination_id=setup.destination_id, now_us=now_us)


async def test_a_paused_destination_gets_nothing_and_is_owed_everything(setup: Any, consumer: Any) -> None:
    """By none of two processes that start during the pause."""
    await pause(setup)
    destination = setup.destination(setup.http(consumer.url))
    processes = [Dispatcher([replace(destination, sender=setup.http(consumer.url))], setup.runtime) for _ in range(2)]
    await setup.record(*(setup.sighting(f"evt_{number}") for number in range(20)))
    async with asyncio.TaskGroup() as tasks:
        for each in processes:
            tasks.create_task(each.run())
        await asyncio.sleep(1.2)  # more than the longest sleep of a worker
        rows = await setup.deliveries()
        assert {(row.state, row.lease_us, row.attempts) for row in rows} == {("pending", 0, 0)}
        assert consumer.got == []
        await resume(setup)
        await setup.until("delivered")
        for each in processes:
            each.stop()
    assert len({got.id for got in consumer.got}) == len(consumer.got) == 20


async def test_a_pause_is_heeded_while_deliveries_are_under_way(setup: Any) -> None:
    """Another process pauses it: what was claimed ahead is given back, and what is under way ends."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    got: list[str] = []

    class Slow:
        async def send(self, delivery: Delivery) -> Result:
            got.append(delivery.key)
            begun.set()
            await go_on.wait()
            return Delivered()

        async def close(self) -> None:
            return

    await setup.record(*(setup.sighting(f"evt_{number}") for number in range(40)))
    async with setup.delivering(setup.destination(Slow(), concurrency=2)):
        await begun.wait()
        await pause(setup)
        await setup.wait_for(lambda rows: sum(row.lease_us > 0 for row in rows) <= 2)
        go_on.set()
        await setup.wait_for(lambda rows: all(row.lease_us == 0 for row in rows))
        rows = await setup.deliveries()
        assert sorted({row.state for row in rows}) == ["delivered", "pending"]
        assert len(got) == sum(row.state == "delivered" for row in rows) == 2
        await resume(setup)
        await setup.until("delivered")
    assert len(set(got)) == len(got) == 40


async def test_trap_sequin_a_long_pause_does_not_end_with_everything_at_once(setup: Any) -> None:
    """What waited is claimed in bounded batches."""
    begun = asyncio.Event()

    class Hangs:
        async def send(self, _: Delivery) -> Result:
            begun.set()
            await asyncio.sleep(600)
            return Delivered()

        async def close(self) -> None:
            return

    await pause(setup)
    await setup.record(*(setup.sighting(f"evt_{number}") for number in range(1000)))
    async with setup.delivering(setup.destination(Hangs(), concurrency=4), grace=timedelta(0)):
        await resume(setup)
        await begun.wait()
        await asyncio.sleep(0.2)
        assert sum(row.lease_us > 0 for row in await setup.deliveries()) <= AHEAD_MAX + 4


async def test_a_claim_in_the_moment_of_the_pause_takes_nothing(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))
    await pause(setup)
    batch = await setup.writer.submit(
        lambda c: deliveries.settle_and_claim(
            c, setup.destination_id, [], now_us=to_us(system_clock()), limit=10, lease_us=1_000_000
        )
    )
    assert (batch.loaded, batch.switch.is_paused) == ([], True)


CONFIGURATION = """
[store]
url_env = "STORE_URL"
[[source]]
name = "acme"
provider = "stripe"
options = { api_key_env = "KEY", webhook_secret_env = "SECRET" }
[[destination]]
name = "billing"
url = "https://billing.example/"
signature = "none"
paused = true
"""


@pytest.fixture
def configured(tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"STORE_URL": store_url, "KEY": "rk_live_1", "SECRET": "whsec_1"}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "gapless.toml"
    path.write_text(CONFIGURATION)
    return path


async def called(path: Path, *args: str) -> tuple[int, str]:
    done = await asyncio.to_thread(CliRunner().invoke, main, ["--config", str(path), *args])
    return done.exit_code, done.output


async def test_trap_outpost_a_destination_can_begin_switched_off(configured: Path, store: Store) -> None:
    async with open_runtime(load(configured, os.environ), os.environ):
        pass
    code, out = await called(configured, "destination", "show", "billing", "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["paused_by"]) == (0, "paused", "configuration")
    assert (await called(configured, "destination", "resume", "billing"))[0] == 0
    async with open_runtime(load(configured, os.environ), os.environ):  # started again with the same configuration
        pass
    found = await store.read(destinations.destination, name="billing")
    assert found is not None
    assert found.pause is None


async def test_the_commands_say_who_paused_it_and_why(configured: Path) -> None:
    async with open_runtime(load(configured, os.environ), os.environ):
        pass
    await called(configured, "destination", "resume", "billing")
    code, out = await called(configured, "destination", "pause", "billing", "--reason", "upgrade until 14:00")
    assert (code, "resume billing" in out) == (0, True)
    _, out = await called(configured, "destination", "list", "--json")
    row = json.loads(out)
    assert (row["state"], row["paused_reason"]) == ("paused", "upgrade until 14:00")
    code, out = await called(configured, "status")
    assert "Paused by" in out
    assert "(upgrade until 14:00); 0 deliveries wait. Since" in out
    _, out = await called(configured, "log", "--json")
    assert '"upgrade until 14:00"' in out
    code, out = await called(configured, "destination", "pause", "billing", "--reason", "again")
    assert (code, "is paused already, by" in out) == (2, True)
    code, out = await called(configured, "destination", "show", "nobody")
    assert (code, "is not known" in out) == (2, True)
