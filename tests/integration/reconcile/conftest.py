"""A fake provider, a ledger on each kind of database, and a clock for the tests of passes."""

from collections.abc import AsyncIterator

import httpx
import pytest
from world import FakeClock, InProcess, World, new_fake

from gapless.ledger.engine import Store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def transport(clock: FakeClock) -> InProcess:
    return InProcess(fake=new_fake(clock))


@pytest.fixture
async def world(store: Store, clock: FakeClock, transport: InProcess) -> AsyncIterator[World]:
    async with httpx.AsyncClient(transport=transport) as client:
        world = World(store=store, clock=clock, fake=transport.fake, client=client)
        await world.open()
        yield world
