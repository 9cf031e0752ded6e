"""A run that the store cut off: the process that still holds the source reads it again at once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from world import HASTY, InProcess, World

from gapless.daemon import maintenance
from gapless.ledger import leases, sources
from gapless.ledger.engine import Store, StoreUnavailable
from gapless.reconcile.scheduler import Scheduler

pytestmark = pytest.mark.anyio


@dataclass
class AwayStore(Store):
    """A store that can be away."""

    inner: Store
    is_away: bool = False
    goes: type[Exception] = NotImplementedError
    """An error of a transaction with which the store goes away once."""

    @property
    def dialect(self) -> str:  # type: ignore[override]
        return self.inner.dialect

    async def read(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await self._run(self.inner.read, query, *args, **kwargs)

    async def write(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await self._run(self.inner.write, work, *args, **kwargs)

    async def _run(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.is_away:
            raise StoreUnavailable("the server closed the connection")
        try:
            return await run(*args, **kwargs)
        except self.goes:
            self.goes = NotImplementedError
            self.leave(0.1)
            raise

    def leave(self, seconds: float) -> None:
        """Be away for some seconds."""
        self.is_away = True
        asyncio.get_running_loop().call_later(seconds, self._return)

    def _return(self) -> None:
        self.is_away = False

    async def close(self) -> None:
        """Do nothing: the inner store belongs to the world."""

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()


async def run_until_found(world: World, store: Store) -> None:
    """Run the scheduler until it has found an event, in far less time than a lease lasts."""
    event = world.fake.emit("invoice.paid")
    world.clock.advance(minutes=5)
    async with world.daemon(store=store) as daemon:
        policies = {"acme": daemon.policy}
        scheduler = Scheduler(daemon.runtime, policies, world.client, holder="one", tick_s=0.05, retry=HASTY)
        running = asyncio.create_task(scheduler.run())
        async with asyncio.timeout(leases.SOURCE_LEASE.total_seconds() / 2):
            while event.key not in await world.keys():
                await asyncio.sleep(0.05)
        scheduler.stop()
        await running


async def test_a_run_that_lost_the_store_is_made_again_at_once(world: World, transport: InProcess) -> None:
    store, requests = AwayStore(world.store), 0

    def lose_the_store(_: httpx.Request) -> None:
        nonlocal requests
        requests += 1
        if requests == 1:
            store.leave(0.2)

    transport.before = lose_the_store
    await run_until_found(world, store)
    row = await world.store.read(sources.source_row, source_id=world.source_id)
    assert row["lease_epoch"] > 1


async def test_only_an_idle_process_takes_its_own_lease_again(world: World) -> None:
    def claim(connection: Any, holder: str, **options: bool) -> bool:
        return leases.claim(connection, world.source_id, holder, 1 << 62, **options) is not None

    assert await world.store.write(claim, holder="one")
    assert not await world.store.write(claim, holder="one")
    assert not await world.store.write(claim, holder="two", is_idle=True)
    assert await world.store.write(claim, holder="one", is_idle=True)


async def test_a_scheduler_that_starts_without_a_store_waits_for_it(world: World) -> None:
    store = AwayStore(world.store)
    store.leave(0.3)
    await run_until_found(world, store)


async def test_a_lost_slot_is_replaced_when_the_store_is_back(world: World) -> None:
    store = AwayStore(world.store, goes=leases.LeaseLost)
    async with world.daemon(store=store, slot=7) as daemon:  # a slot that is not its own
        beating = asyncio.create_task(maintenance.beat(daemon.runtime, "one", receives=True))
        async with asyncio.timeout(30):
            while daemon.runtime.writer.recorder.slot == 7 and not beating.done():
                await asyncio.sleep(0.05)
        assert not beating.done()
        beating.cancel()
