"""Rows that cannot be read keep no others from being recorded: they are set aside, shown, and dismissed by a person."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from world import T0, Daemon, FakeClock, InProcess, World, new_fake

from gapless.domain import Sources, from_us, to_us
from gapless.ledger import missing, unreadable
from gapless.ledger.missing import MissingDetails
from gapless.operations.audit import audit_list
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.provider_api.health import stream_names
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.status.reader import read_report
from gapless.status.troubles import Severity, Trouble, TroubleKind, troubles
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake.event_store import FakeEvent

pytestmark = pytest.mark.anyio
ANY_STORE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what no store can change."""
Rewrite = Callable[[bytes], bytes]


@dataclass(kw_only=True)
class OddVendor(InProcess):
    """A vendor whose list shows the rows of `odd` in another form, and whose answers `cut` may cut short."""

    odd: dict[str, Rewrite] = field(default_factory=dict)
    cut: Callable[[bytes], bytes] = lambda body: body
    path: str = "/v1/events"
    lists: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        body = response.content
        if request.url.path != self.path:
            return response
        self.lists += 1
        for key, rewrite in self.odd.items():
            body = re.sub(
                rb'\{"id":"%b".*?"type":"[^"]*"\}' % key.encode(), lambda row, rewrite=rewrite: rewrite(row[0]), body
            )
        return httpx.Response(200, headers={"date": response.headers["date"]}, content=self.cut(body))


def without_time(row: bytes) -> bytes:
    return re.sub(rb'"created":\d+', b'"created":null', row)


def without_object(row: bytes) -> bytes:
    return re.sub(rb'"data":\{"object":.*?\}\}', b'"data":{"object":null}', row)


def without_id(row: bytes) -> bytes:
    return row.replace(b'"id":"evt', b'"no":"evt')


def surrogate_id(row: bytes) -> bytes:
    return row.replace(b'"id":"evt', rb'"id":"\ud83devt')


def surrogate_note(row: bytes) -> bytes:
    return row.replace(b'"pending_webhooks":1', rb'"pending_webhooks":1,"description":"x\ud83d"')


@pytest.fixture
def transport(clock: FakeClock) -> OddVendor:
    return OddVendor(fake=new_fake(clock))


@pytest.fixture
async def daemon(world: World) -> AsyncIterator[Daemon]:
    async with world.daemon(page_limit=10) as daemon:
        yield daemon


def emit(world: World, clock: FakeClock, count: int) -> list[FakeEvent]:
    """Let events happen, a minute apart."""
    made = []
    for _ in range(count):
        clock.advance(minutes=1)
        made.append(world.fake.emit("invoice.paid", push=False))
    return made


async def read_later(daemon: Daemon) -> None:
    """Read the list five minutes later."""
    daemon.world.clock.advance(minutes=5)
    await daemon.run_source()


async def rows(world: World, *, closed: bool = False) -> list[MissingDetails]:
    return await world.store.read(missing.entries, closed=closed)


async def wrong(world: World) -> dict[TroubleKind, Trouble]:
    """Return what `gapless status` says is wrong."""
    report = await read_report(world.store, Sources([world.source()]), world.clock())
    return {each.kind: each for each in troubles(report)}


def operations(daemon: Daemon) -> OperationContext:
    runtime = daemon.runtime
    evidence = EvidenceFetcher(daemon.world.client, runtime.clock, runtime.metrics)
    return OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer), actor="someone")


@pytest.mark.parametrize("odd", [without_time, without_object, without_id, surrogate_id])
async def test_odd_row_is_set_aside_and_all_others_recorded(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor, odd: Rewrite
) -> None:
    made = emit(world, clock, 25)
    transport.odd = {made[12].key: odd}
    await read_later(daemon)
    assert await world.keys() == {event.key for event in made} - {made[12].key}
    (row,) = await rows(world)
    assert (row.reason, row.state, row.key[:11]) == ("unreadable", "open", "unreadable:")
    assert row.row is not None
    assert made[12].key.encode() in row.row
    assert from_us(row.occurred_us) == made[11].occurred_at
    assert from_us(row.until_us or 0) == made[13].occurred_at + timedelta(seconds=1)
    assert (await world.missed(), (await world.totals()).expected) == (24, 24)
    assert await world.complete_up_to() == made[11].occurred_at
    assert from_us((await world.stream()).watermark_us) == clock() - timedelta(minutes=1)
    assert (await world.passes())[0]["outcome"] == "found"
    listed = await world.comparison()
    assert (listed.missing_open, listed.unreadable_rows) == (1, 1)
    told = (await wrong(world))[TroubleKind.ROWS_UNREADABLE]
    assert (told.severity, told.since) == (Severity.TROUBLE, clock())
    assert told.text.startswith("The list shows 1 row that cannot be read")
    assert "gapless missing list --source acme" in told.next
    assert "gapless missing dismiss KEY --source acme" in told.next


@ANY_STORE
async def test_odd_field_that_nobody_reads_is_recorded(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    transport.odd = {made[2].key: surrogate_note}
    await read_later(daemon)
    assert await world.keys() == {event.key for event in made}
    assert await rows(world) == []


async def test_odd_row_is_one_row_however_often_it_is_shown(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    transport.odd = {made[2].key: without_time}
    for minutes in (2, 8, 8):
        clock.advance(minutes=minutes)
        await daemon.run_source()
    (row,) = await rows(world)
    assert row.attempts == 2
    assert await world.complete_up_to() == made[1].occurred_at


async def test_row_that_becomes_readable_is_recorded_and_closed(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    transport.odd = {made[2].key: without_time}
    clock.advance(minutes=3)
    await daemon.run_source()
    transport.odd = {}
    clock.advance(minutes=3)
    await daemon.run_source()
    assert await world.keys() == {event.key for event in made}
    assert await rows(world) == []
    assert [row.state for row in await rows(world, closed=True)] == ["resolved"]
    assert await world.complete_up_to() == clock() - timedelta(minutes=1)
    transport.odd = {made[2].key: without_time}
    clock.advance(minutes=8)
    await daemon.run_source()
    assert [row.state for row in await rows(world)] == ["open"]


@ANY_STORE
async def test_only_a_pass_over_all_its_possible_time_closes_a_row(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    transport.odd = {made[2].key: without_time}
    clock.advance(minutes=3)
    await daemon.run_source()
    await daemon.demand(made[0].occurred_at, made[2].occurred_at)
    await daemon.run_source()
    assert len(await rows(world)) == 1


async def test_dismissed_row_stays_dismissed_and_is_unrecoverable(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    transport.odd = {made[2].key: without_time}
    clock.advance(minutes=3)
    await daemon.run_source()
    (row,) = await rows(world)
    args = {"source": "acme", "keys": [row.key], "reason": "a test event"}
    with pytest.raises(OperationRefused, match="has no open unreadable row 'unreadable:x'"):
        await perform(operations(daemon), "missing.dismiss", {**args, "keys": [row.key, "unreadable:x"]})
    assert len(await rows(world)) == 1
    assert (await perform(operations(daemon), "missing.dismiss", args))["dismissed"] == [row.key]
    clock.advance(minutes=3)
    await daemon.run_source()
    assert await rows(world) == []
    (loss,) = await world.unrecoverable()
    assert (from_us(loss.start_us), loss.reason) == (made[1].occurred_at, "unreadable_dismissed")
    assert from_us(loss.end_us) == made[3].occurred_at + timedelta(seconds=1)
    assert (loss.acknowledged_by, loss.acknowledged_reason) == ("someone", "a test event")
    assert await world.complete_up_to() == clock() - timedelta(minutes=1)
    assert not (await wrong(world)).keys() & {TroubleKind.ROWS_UNREADABLE, TroubleKind.UNRECOVERABLE}
    assert (await world.store.read(audited)).count("missing.dismiss") == 1


def audited(connection: Any) -> list[str]:
    return list(connection.exec_driver_sql("SELECT action FROM audit_log").scalars())


async def test_page_of_odd_rows_is_another_shape(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 15)
    transport.odd = {event.key: without_time for event in made[5:10]}
    await read_later(daemon)
    assert await world.keys() == {event.key for event in made[10:]}
    assert await rows(world) == []
    assert (await world.stream()).last_outcome == "unexpected_shape"
    assert TroubleKind.LIST_UNREADABLE in await wrong(world)


async def test_more_than_ten_new_odd_rows_end_a_pass(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 70)
    transport.odd = {event.key: without_time for event in made[::5]}
    await read_later(daemon)
    assert (await world.stream()).last_outcome == "unexpected_shape"
    assert len(await rows(world)) == 10
    await daemon.run_source()
    assert len(await rows(world)) == 14
    assert len(await world.keys()) == 56
    assert (await world.stream()).last_outcome == "clean"
    assert await world.complete_up_to() == T0


async def test_a_hundred_open_rows_are_another_shape(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    now_us = to_us(clock())
    known = [
        unreadable.OddRow(
            source_id=world.source_id, stream_id=world.stream_id, key=f"unreadable:{number}", row=b"{}", problem="",
            occurred_us=now_us, until_us=now_us + 1,
        )
        for number in range(99)
    ]  # fmt: skip
    await world.store.write(unreadable.set_aside, rows=known, now_us=now_us)
    transport.odd = {made[2].key: without_time}
    await read_later(daemon)
    assert (await world.stream()).last_outcome == "unexpected_shape"
    assert await world.keys() == {event.key for event in made} - {made[2].key}


async def test_webhook_whose_row_is_odd_makes_no_list_suspect(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 1)
    await daemon.push(*made)
    transport.odd = {made[0].key: without_time}
    clock.advance(minutes=10)
    for _ in range(2):
        await daemon.run_source()
        clock.advance(minutes=2)
    assert (await world.stream()).last_outcome == "clean"
    assert (await world.totals()).counts["unlisted"] == 0
    assert await world.complete_up_to() == T0


@ANY_STORE
async def test_answer_that_was_cut_short_is_asked_for_once_more(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 25)
    cut = iter([True, False, False, True, False])
    transport.cut = lambda body: body[:-40] if next(cut) else body
    await read_later(daemon)
    assert await world.keys() == {event.key for event in made}
    assert (transport.lists, (await world.passes())[0]["outcome"]) == (5, "found")


@ANY_STORE
async def test_list_of_streams_cut_short_is_asked_for_once_more(
    daemon: Daemon, world: World, transport: OddVendor
) -> None:
    world.fake.emit("invoice.paid", push=False, stream="acct_1")
    connected = Stripe(StripeOptions(api_key=Secret("sk_live_fake"), connect=True, api_base=world.url))
    daemon.runtime.sources.change("acme", provider=connected)
    transport.path, cut = "/v1/accounts", iter([True, False])
    transport.cut = lambda body: body[:-9] if next(cut) else body
    assert (await stream_names(daemon.client), transport.lists) == (["acct_1"], 2)


@ANY_STORE
@pytest.mark.parametrize(
    ("answer", "asked"),
    [(b"<html>busy</html>", 2), (b"", 2), (b'{"data":[', 2), (b'{"rows":[],"has_more":false}', 1)],
    ids=["html", "nothing", "cut short", "another shape"],
)
async def test_only_an_answer_that_is_no_json_is_asked_for_again(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor, answer: bytes, asked: int
) -> None:
    emit(world, clock, 5)
    transport.cut = lambda _: answer
    await read_later(daemon)
    assert (transport.lists, (await world.stream()).last_outcome) == (asked, "unexpected_shape")


@ANY_STORE
async def test_audit_tells_rows_that_cannot_be_read(
    daemon: Daemon, world: World, clock: FakeClock, transport: OddVendor
) -> None:
    made = emit(world, clock, 5)
    transport.odd = {made[2].key: without_time}
    clock.advance(minutes=5)

    async def known(keys: Any) -> Any:
        return set(keys)

    capabilities = daemon.policy.capabilities
    report = await audit_list(daemon.client, capabilities, "", T0, None, now=clock(), known=known)
    assert (report.found, len(report.missing), len(report.unreadable)) == (4, 0, 1)
    assert report.as_values(None)["unreadable"] == 1
