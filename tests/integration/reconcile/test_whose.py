"""The account behind a key: another one is never recorded, and one account is read by one source."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, update
from world import HASTY, SECRET, Daemon, InProcess, World

from gapless.bootstrap.destinations import make_destination
from gapless.deliver.routing import build_route
from gapless.domain import Owed, to_us
from gapless.ledger import Connection, destinations, sources
from gapless.ledger.tables import AUDIT_LOG, DELIVERY, SOURCE
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.reconcile.scheduler import Scheduler
from gapless.settings import DestinationSettings
from gapless.status.reader import read_report
from gapless.status.troubles import Trouble, notes, troubles

pytestmark = pytest.mark.anyio
UNUSED: Any = object()


def swap(world: World, account: str = "acct_other") -> None:
    """From now on the key reads another account."""
    world.fake.vendor_format = replace(world.fake.vendor_format, account=account)  # type: ignore[type-var]


async def read_once(daemon: Daemon, *, health: bool = True) -> None:
    daemon.world.clock.advance(minutes=5)
    await daemon.run_source(health=health)


async def deliveries(world: World) -> list[tuple[str, str | None]]:
    query = select(DELIVERY.c.state, DELIVERY.c.reason).order_by(DELIVERY.c.event_seq)
    return await world.store.read(lambda c: [tuple(row) for row in c.execute(query)])


async def shown(world: World, daemon: Daemon) -> list[Trouble]:
    return troubles(await read_report(world.store, daemon.runtime.sources, world.clock()))


async def ask(daemon: Daemon, name: str, **args: object) -> dict[str, object]:
    runtime = daemon.runtime
    evidence = EvidenceFetcher(daemon.world.client, runtime.clock, runtime.metrics)
    context = OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer))
    return await perform(context, name, args)


@pytest.fixture
async def app(world: World) -> int:
    """A destination that is owed everything."""
    return await world.store.write(lambda c: destinations.register_destination(c, "app", world.start))


@pytest.fixture
async def daemon(world: World, app: int) -> AsyncIterator[Daemon]:
    """A process that has read one event of the source's own account."""
    route = lambda *_: [Owed(destination_id=app, not_before_us=0)]  # noqa: E731
    async with world.daemon(route=route) as daemon:
        world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
        world.fake.emit("invoice.paid")
        await read_once(daemon)
        assert len(await world.keys()) == 1
        yield daemon


async def test_events_of_another_account_are_not_recorded(world: World, daemon: Daemon) -> None:
    swap(world)
    for _ in range(7):
        world.fake.emit("invoice.paid")
    for health in (True, False, False):
        await read_once(daemon, health=health)
    assert len(await world.keys()) == 1
    assert (await world.report()).state == "parked"
    assert await world.missed() == 1


async def test_another_account_holds_what_the_list_showed(world: World, daemon: Daemon) -> None:
    await daemon.push(world.fake.emit("charge.failed"))
    swap(world)
    await read_once(daemon)
    assert await deliveries(world) == [("held", "other_account"), ("pending", None)]


async def test_webhooks_of_another_account_are_recorded(world: World, daemon: Daemon) -> None:
    swap(world)
    await read_once(daemon)
    assert await daemon.push(world.fake.emit("invoice.paid")) == [1]


async def test_status_names_the_other_account(world: World, daemon: Daemon) -> None:
    swap(world)
    await read_once(daemon)
    found = {each.kind.value: each for each in await shown(world, daemon)}
    assert "acct_other" in found["other_account"].text
    assert "acct_fake" in found["other_account"].text
    assert "gapless source accept-account acme" in found["other_account"].next
    assert "another account" in found["deliveries_held"].text
    assert "accept-account" in found["deliveries_held"].next


@pytest.mark.parametrize(("dismiss", "left"), [(False, [("pending", None)]), (True, [])])
async def test_an_accepted_account_is_read(
    world: World, daemon: Daemon, *, dismiss: bool, left: list[tuple[str, str | None]]
) -> None:
    swap(world)
    await read_once(daemon)
    with pytest.raises(OperationRefused, match="reads account acct_other, not acct_third"):
        await ask(daemon, "source.accept_account", source="acme", account="acct_third")
    done = await ask(daemon, "source.accept_account", source="acme", account="acct_other", dismiss=dismiss)
    assert done == {"was": "acct_fake", "account": "acct_other", "dismissed" if dismiss else "released": 1}
    assert await deliveries(world) == left
    actions = await world.store.read(lambda c: c.execute(select(AUDIT_LOG.c.action)).scalars().all())
    assert set(actions) == {"source.accept_account"}
    world.fake.emit("invoice.paid")
    await read_once(daemon)
    assert len(await world.keys()) == 2
    assert (await world.report()).state == "active"
    with pytest.raises(OperationRefused, match="nothing to accept"):
        await ask(daemon, "source.accept_account", source="acme")


async def test_the_own_account_is_read_again_by_itself(world: World, daemon: Daemon) -> None:
    swap(world)
    await read_once(daemon)
    swap(world, "acct_fake")
    world.fake.emit("invoice.paid")
    await read_once(daemon, health=False)
    assert len(await world.keys()) == 2
    assert (await deliveries(world))[0] == ("held", "other_account")  # a person says what becomes of them
    assert (await ask(daemon, "source.accept_account", source="acme"))["released"] == 1


async def test_held_ones_of_another_account_need_their_name(world: World, daemon: Daemon) -> None:
    swap(world)
    await read_once(daemon)
    assert await ask(daemon, "held.release") == {"released": 0}
    assert await ask(daemon, "held.release", reason="other_account") == {"released": 1}
    await read_once(daemon)
    assert await deliveries(world) == [("pending", "released")]  # a person released it: it is not held again


async def test_a_key_replaced_during_a_pass_records_nothing(world: World, daemon: Daemon, transport: InProcess) -> None:
    world.fake.emit("invoice.paid")

    def replace_key(request: httpx.Request) -> None:
        if request.url.path == "/v1/events":
            daemon.runtime.sources.change("acme", provider=world.provider())

    transport.before = replace_key
    await read_once(daemon)
    assert len(await world.keys()) == 1
    assert (await world.stream()).last_outcome == "key_replaced"
    row = await world.store.read(sources.source_row, source_id=world.source_id)
    assert row["next_pass_us"] <= to_us(world.clock())
    transport.before = lambda _: None
    await read_once(daemon)
    assert len(await world.keys()) == 2


async def test_an_endpoint_of_another_account_is_not_repaired(world: World, daemon: Daemon) -> None:
    daemon.policy = replace(daemon.policy, repair=True)
    world.fake.endpoints[0].enabled = False
    swap(world)
    await read_once(daemon)
    assert not world.fake.endpoints[0].enabled


@asynccontextmanager
async def scheduling(daemon: Daemon) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(
        daemon.runtime, {"acme": daemon.policy}, daemon.world.client, holder="two", tick_s=0.01, retry=HASTY
    )
    running = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        scheduler.stop()
        await running


async def test_an_outage_postpones_the_pass_not_the_check(world: World, daemon: Daemon) -> None:
    swap(world)
    world.fake.emit("invoice.paid")
    world.fake.faults.outage = True
    world.clock.advance(minutes=10)
    async with scheduling(daemon):
        await until(world.stream, lambda stream: stream.last_outcome == "provider_unavailable")
        world.fake.faults.outage = False
        async with asyncio.timeout(20):
            while len(await world.keys()) == 1 and (await world.report()).state == "active":
                world.clock.advance(seconds=30)
                await asyncio.sleep(0.02)
    assert len(await world.keys()) == 1
    assert (await world.report()).state == "parked"


async def until(read: Any, wanted: Any) -> None:
    async with asyncio.timeout(20):
        while not wanted(await read()):
            await asyncio.sleep(0.01)


async def elder(world: World, account: str = "acct_fake", ago: timedelta = timedelta(days=1)) -> None:
    """A source that has had the account before."""

    def work(connection: Connection) -> None:
        row = {"name": "elder", "provider": "stripe", "mode": "hybrid", "start_us": 0, "account": account}
        connection.execute(insert(SOURCE).values(**row))
        if "account_us" in SOURCE.c:
            since = {"account_us": to_us(world.clock() - ago)}
            connection.execute(update(SOURCE).where(SOURCE.c.name == "elder").values(**since))

    await world.store.write(work)


async def test_a_shared_account_is_refused_at_every_turn(world: World) -> None:
    await elder(world)
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    world.fake.emit("invoice.paid")
    async with world.daemon() as daemon:
        for health in (True, False, False):
            await read_once(daemon, health=health)
        assert await world.keys() == set()
        (found,) = [each for each in await shown(world, daemon) if each.kind.value == "stream_parked"]
    assert "reads the same account as elder" in found.text
    assert "share_account = true" in found.text


async def test_who_had_the_account_first_goes_on(world: World) -> None:
    await elder(world, ago=timedelta(days=-1))  # it came later
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    world.fake.emit("invoice.paid")
    async with world.daemon() as daemon:
        await read_once(daemon)
    assert len(await world.keys()) == 1


async def test_a_shared_account_is_read_where_it_is_allowed(world: World) -> None:
    await elder(world)
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    world.fake.emit("invoice.paid")
    async with world.daemon(share_account=True) as daemon:
        await read_once(daemon)
    assert len(await world.keys()) == 1


async def test_a_test_event_at_a_live_source_is_owed_to_nobody(world: World, app: int) -> None:
    settings = DestinationSettings(name="app")
    wanting = [make_destination(settings, app, 0, UNUSED)]
    async with world.daemon(route=build_route(wanting)) as daemon:
        assert await daemon.push(world.fake.emit("invoice.paid", livemode=False)) == [1]
        await daemon.push(world.fake.emit("invoice.paid"))
        assert await world.owed() == 1
        report = await world.report()
    assert (report.livemode, report.other_mode) == (True, 1)
    (note,) = [each for each in notes(report) if "mode" in each]
    assert note.startswith("1 event of test mode came by webhook: recorded, and delivered only to")
