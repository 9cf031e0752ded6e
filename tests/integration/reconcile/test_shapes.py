"""A log of deliveries, walked from the top: detail, redelivery, and the time in which the hook was off. With GitHub."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from receiving import receiving
from sqlalchemy import insert, select
from world import HASTY, Daemon, FakeClock, World, new_fake

from gapless.domain import Mode, Via, from_us
from gapless.ledger import Connection, events, missing, quarantine, watermarks
from gapless.ledger.engine import Store
from gapless.ledger.tables import MISSING
from gapless.ledger.tallies import Tallies
from gapless.receive import webhook
from gapless.status.troubles import TroubleKind, troubles
from gapless_reconcilers.kit.contract import Provider, RecordedEvent, Reply, Secret, WebhookRequest
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.testing.suite.scenario import make_request

pytestmark = pytest.mark.anyio
HOOK = 77
SECRET = "s3cret"


@dataclass
class Hook:
    """One hook of GitHub's: its log is newest first, by page, and has only what happened while it was active."""

    clock: FakeClock
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    active: bool = True
    requests: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    again: list[dict[str, Any]] = field(default_factory=list)
    per_page: int = 2

    def deliver(self, event: str = "push", action: str | None = None, guid: str | None = None) -> dict[str, Any] | None:
        """Let an event happen. Return its delivery; None if the hook is off."""
        if not self.active:
            return None
        made = {
            "id": len(self.deliveries) + 1, "guid": guid or str(uuid.uuid4()), "event": event, "action": action,
            "delivered_at": self.clock().isoformat(), "payload": {"action": action, "n": len(self.deliveries)},
        }  # fmt: skip
        self.deliveries.insert(0, made)
        return made

    def answer(self, request: httpx.Request) -> httpx.Response:
        rest = request.url.path.partition(f"/hooks/{HOOK}")[2].strip("/").split("/")
        self.requests.append(f"{request.method} {'/'.join(rest)}")
        if (status := self.answers.get(rest[-1])) is not None:
            return httpx.Response(status, json={"message": "no"})
        if rest == [""]:
            config = {"url": "https://hooks.example/webhooks/acme"}
            return httpx.Response(200, json={"id": HOOK, "active": self.active, "events": ["*"], "config": config})
        if rest == ["deliveries"]:
            return self.page(int(request.url.params.get("cursor", 0)))
        found = next((each for each in self.deliveries if str(each["id"]) == rest[1]), None)
        if found is None:
            return httpx.Response(404, json={"message": "Not Found"})
        if rest[2:] == ["attempts"]:
            self.again.append(found)
            return httpx.Response(202, json={})
        return httpx.Response(200, json={**found, "request": {"headers": {}, "payload": found["payload"]}})

    def page(self, first: int) -> httpx.Response:
        rows = self.deliveries[first : first + self.per_page]
        last = first + self.per_page
        link = {"Link": f'<https://api.github.com/x?cursor={last}>; rel="next"'} if last < len(self.deliveries) else {}
        return httpx.Response(200, json=rows, headers=link)


@pytest.fixture
def hook(clock: FakeClock) -> Hook:
    return Hook(clock=clock)


@pytest.fixture
async def world(store: Store, clock: FakeClock, hook: Hook, remedy: str) -> AsyncIterator[World]:
    def make(url: str, page_limit: int = 100) -> Provider:
        return GitHub(
            GitHubOptions(
                token=Secret("ghp_x"),
                webhook_secret=(Secret(SECRET),),
                repository="acme/shop",
                hook_id=HOOK,
                remedy=remedy,  # type: ignore[arg-type]
                page_limit=page_limit,
                api_base=url,
            )
        )

    async with httpx.AsyncClient(transport=httpx.MockTransport(hook.answer)) as client:
        world = World(store=store, clock=clock, fake=new_fake(clock), client=client, make=make)
        await world.open()
        yield world


@pytest.fixture
def remedy() -> str:
    return "detail"


def webhook_of(daemon: Daemon, delivery: dict[str, Any]) -> WebhookRequest:
    """The delivery's webhook, signed."""
    kind = ".".join(filter(None, (delivery["event"], delivery["action"])))
    recorded = RecordedEvent(
        key=f"{HOOK}:{delivery['guid']}",
        type=kind,
        occurred_at=daemon.world.clock(),
        stream="",
        payload=json.dumps(delivery["payload"]).encode(),
        via="webhook",
    )
    message = daemon.source.provider.render(recorded, "", Secret(SECRET), daemon.world.clock())
    return make_request(message.headers, message.body)  # type: ignore[union-attr]


async def receive(daemon: Daemon, delivery: dict[str, Any]) -> None:
    """The delivery's webhook, recorded."""
    request = webhook_of(daemon, delivery)
    reply = webhook.read_webhook(daemon.source.provider, request, daemon.world.clock())
    assert isinstance(reply, Reply), reply
    await daemon.runtime.writer.record(
        tuple(daemon.sighting(event, Via.WEBHOOK, request.body) for event in reply.events), len(request.body)
    )


async def test_what_the_log_shows_and_we_lack_is_fetched_one_by_one_and_missed_once(
    world: World, hook: Hook, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        for number in range(7):
            made = hook.deliver("issues", "opened")
            assert made is not None
            if number % 3 == 0:
                await receive(daemon, made)
            clock.advance(seconds=20)
        clock.advance(minutes=10)
        await daemon.run_source()
        assert len(await world.keys()) == 7
        assert sorted((await world.via()).values()) == ["list"] * 4 + ["webhook"] * 3
        assert (await world.missed(), await world.missing_open()) == (4, 0)
        assert from_us((await world.stream()).watermark_us) == clock() - timedelta(minutes=5)
        before = len(hook.requests)
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await world.missed() == 4
        assert not [path for path in hook.requests[before:] if path.startswith("GET deliveries/")]


async def test_an_odd_row_of_the_log_is_set_aside_once(world: World, hook: Hook, clock: FakeClock) -> None:
    """The log has no filter by time: each pass shows the row again, also after its time was read."""
    async with world.daemon() as daemon:
        made = []
        for _ in range(5):
            made.append(hook.deliver())
            clock.advance(minutes=1)
        hook.deliveries[2]["delivered_at"] = None
        clock.advance(minutes=10)
        await daemon.run_source()
        assert (len(await world.keys()), await world.missing_open()) == (4, 1)
        assert await world.complete_up_to() == world.start + timedelta(minutes=1)
        for _ in range(3):
            hook.deliver()
            clock.advance(hours=1)
            await daemon.run_source()
        assert (len(await world.keys()), await world.missing_open()) == (7, 1)
        assert await world.complete_up_to() == world.start + timedelta(minutes=1)
        assert (await world.stream()).last_outcome in ("clean", "found")


async def test_several_attempts_of_one_event_are_one_event(world: World, hook: Hook, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        first = hook.deliver()
        assert first is not None
        clock.advance(minutes=1)
        hook.deliver(guid=first["guid"])
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await world.keys() == {f"{HOOK}:{first['guid']}"}
        assert await world.missed() == 1


async def test_only_types_that_are_wanted_cost_a_request(world: World, hook: Hook, clock: FakeClock) -> None:
    async with world.daemon(types=["issues.*"]) as daemon:
        hook.deliver("push")
        wanted = hook.deliver("issues", "opened")
        assert wanted is not None
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await world.keys() == {f"{HOOK}:{wanted['guid']}"}
        assert [path for path in hook.requests if path.startswith("GET deliveries/")] == [
            f"GET deliveries/{wanted['id']}"
        ]


async def test_a_detail_that_fails_is_tried_again_on_its_own_schedule_and_survives_the_process(
    world: World, hook: Hook, clock: FakeClock
) -> None:
    made = hook.deliver()
    assert made is not None
    hook.answers[str(made["id"])] = 502
    clock.advance(minutes=10)
    async with world.daemon() as daemon:
        await daemon.run_source()
        assert (await world.missed(), await world.missing_open(), await world.keys()) == (1, 1, set())
        assert await world.complete_up_to() == from_us(await world.store.read(oldest_missing))
    hook.answers.clear()
    clock.advance(minutes=5)
    async with world.daemon() as daemon:
        await daemon.run_source()
        assert (await world.missed(), await world.missing_open(), len(await world.keys())) == (1, 0, 1)


def oldest_missing(connection: Any) -> int:
    return int(connection.exec_driver_sql("SELECT min(occurred_us) FROM missing WHERE state = 'open'").scalar())


@pytest.mark.parametrize("mode", list(Mode)[::2])
@pytest.mark.parametrize("remedy", ["detail", "redelivery"])
async def test_what_left_the_log_is_lost_and_unrecoverable(
    world: World, hook: Hook, clock: FakeClock, mode: Mode
) -> None:
    world.mode = mode
    made = hook.deliver()
    assert made is not None
    happened = clock()
    hook.answers[str(made["id"])] = hook.answers["attempts"] = 404
    clock.advance(minutes=10)
    async with world.daemon() as daemon:
        await daemon.run_source()
        assert (await world.missing_open(), await world.keys()) == (0, set())
        (loss,) = await world.unrecoverable()
        assert (from_us(loss.start_us), from_us(loss.end_us)) == (happened, happened + timedelta(seconds=1))
        assert loss.reason == "event_lost"
        report = await world.report()
        assert report.listed is not None
        assert (report.listed.lost, report.unrecoverable_time) == (1, timedelta(seconds=1))
        (trouble,) = (each for each in troubles(await world.whole_report()) if each.kind is TroubleKind.EVENTS_LOST)
        assert "gapless source acknowledge acme" in trouble.next
        if mode is Mode.HYBRID:
            assert (await world.missed(), report.losses and report.losses.recovered) == (1, 0)
            assert report.gaps["24h"] is not None


async def test_a_second_loss_in_an_acknowledged_second_is_new(world: World, hook: Hook, clock: FakeClock) -> None:
    first, second = hook.deliver(), hook.deliver()
    assert first is not None
    assert second is not None
    hook.answers |= {str(first["id"]): 404, str(second["id"]): 502}
    clock.advance(minutes=10)
    async with world.daemon() as daemon:
        await daemon.run_source()
        done = await daemon.runtime.write(
            watermarks.acknowledge, source_id=world.source_id, by="x", reason="y", now_us=daemon.runtime.now_us
        )
        assert len(done) == 1
        assert not (await world.report()).not_acknowledged
        hook.answers[str(second["id"])] = 404
        clock.advance(minutes=5)
        await daemon.run_source()
        assert len((await world.report()).not_acknowledged) == 1
        assert (await world.comparison()).lost == 2


async def insert_rows(daemon: Daemon, made: Sequence[dict[str, Any]], **changes: Any) -> None:
    """Open missing rows for these deliveries, counted as earlier releases did beside a webhook."""
    slot, tallied = daemon.runtime.writer.recorder.slot, Tallies()
    at_us = daemon.runtime.now_us
    rows = [
        {
            "source_id": daemon.world.source_id, "stream_id": daemon.world.stream_id, "key": f"{HOOK}:{each['guid']}",
            "type": "push", "occurred_us": at_us, "found_us": at_us, "expected": True, "cause": "unexplained",
            "reason": "detail", "next_attempt_us": at_us, "ref": str(each["id"]), **changes,
        }
        for each in made
    ]  # fmt: skip

    def work(connection: Connection) -> None:
        connection.execute(insert(MISSING), rows)
        for row in rows:
            tallied.add(row["source_id"], row["occurred_us"], "expected", "missed_unexplained")
        tallied.write(connection, slot)

    await daemon.runtime.write(work)


async def test_a_row_beside_its_event_is_closed_and_counted_back(world: World, hook: Hook, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        made = [each for each in (hook.deliver() for _ in range(60)) if each]
        for each in made:
            await receive(daemon, each)
        await insert_rows(daemon, made)
        lost = [each for each in (hook.deliver() for _ in range(5)) if each]
        clock.advance(minutes=10)
        await daemon.run_source()
        assert len(await world.keys()) == 65
        totals = await world.totals()
        assert (totals.expected, totals.missed, await world.missing_open()) == (65, 5, 0)
        assert await world.complete_up_to() == from_us((await world.stream()).watermark_us)
        fetched = {path for path in hook.requests if path.startswith("GET deliveries/")}
        assert fetched == {f"GET deliveries/{each['id']}" for each in lost}


@pytest.mark.parametrize("status", [502, 403])
async def test_rows_that_keep_failing_starve_no_others(world: World, hook: Hook, clock: FakeClock, status: int) -> None:
    async with world.daemon() as daemon:
        bad = [each for each in (hook.deliver() for _ in range(52)) if each]
        hook.answers |= {str(each["id"]): status for each in bad}
        await insert_rows(daemon, bad)
        clock.advance(hours=1)
        await daemon.run_source()
        lost = [each for each in (hook.deliver() for _ in range(5)) if each]
        clock.advance(hours=7)
        await daemon.run_source()
        wanted = {f"{HOOK}:{each['guid']}" for each in lost}
        assert await world.keys() == wanted


async def test_a_row_whose_event_came_meanwhile_is_closed(world: World, hook: Hook, clock: FakeClock) -> None:
    """The webhook is recorded while its delivery is being fetched."""
    made = hook.deliver()
    assert made is not None
    clock.advance(minutes=10)
    async with world.daemon() as daemon:
        await insert_rows(daemon, [made], found_us=daemon.runtime.now_us)
        (row,) = await daemon.runtime.read(
            missing.due, source_id=world.source_id, now_us=daemon.runtime.now_us, limit=9
        )
        await receive(daemon, made)
        assert await daemon.runtime.write(missing.still_missing, slot=0, rows=[row]) == []
        totals = await world.totals()
        assert (totals.expected, totals.missed, totals.counts["late"], await world.missing_open()) == (1, 1, 1, 0)


@pytest.mark.parametrize("remedy", ["redelivery"])
async def test_a_redelivery_is_neither_late_nor_a_duplicate(world: World, hook: Hook, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        made = hook.deliver()
        assert made is not None
        clock.advance(minutes=10)
        await daemon.run_source()
        assert (await world.missed(), await world.missing_open()) == (1, 1)
        (redelivered,) = hook.again
        await receive(daemon, redelivered)
        assert await world.via() == {f"{HOOK}:{made['guid']}": "redelivery"}
        counts = (await world.totals()).counts
        assert (counts["by_redelivery"], counts["by_webhook"], counts["late"], counts["duplicates"]) == (1, 0, 0, 0)
        assert (await world.missed(), await world.missing_open()) == (1, 0)
        assert (daemon.recoveries("redelivery"), daemon.recoveries()) == ((1, 600.0), (0, 0.0))
        await receive(daemon, redelivered)
        assert daemon.recoveries("redelivery")[0] == 1
        assert (await world.totals()).counts["duplicates"] == 1


async def early(world: World, hook: Hook, clock: FakeClock, daemon: Daemon) -> dict[str, Any]:
    """A delivery that a pass has found while its webhook may still come."""
    made = hook.deliver()
    assert made is not None
    clock.advance(seconds=30)
    await daemon.run_source()
    totals = await world.totals()
    assert (totals.expected, totals.missed) == (1, 0)
    return made


async def later(world: World, clock: FakeClock, daemon: Daemon) -> tuple[int, int, int, int]:
    """Return the expected, the missed, the late, and the events of which missing or recovered say so."""
    clock.advance(minutes=10)
    await daemon.run_source()
    totals, losses = await world.totals(), (await world.report()).losses
    assert losses is not None
    assert losses.recovered >= 0
    return totals.expected, totals.missed, totals.counts["late"], losses.recovered


async def test_a_webhook_that_closes_a_row_in_time_leaves_nothing_missed(
    world: World, hook: Hook, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        hook.answers = {"1": 500}  # the detail
        made = await early(world, hook, clock, daemon)
        assert (await world.missing_open(), (await world.comparison()).lost) == (1, 0)
        await receive(daemon, made)
        assert await later(world, clock, daemon) == (1, 0, 0, 0)
        assert await world.missing_open() == 0


async def test_a_detail_that_is_fetched_early_is_judged_late(world: World, hook: Hook, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        made = await early(world, hook, clock, daemon)
        assert await world.via() == {f"{HOOK}:{made['guid']}": "list"}
        assert await later(world, clock, daemon) == (1, 1, 0, 1)
        await receive(daemon, made)
        assert await later(world, clock, daemon) == (1, 1, 1, 1)


async def test_a_webhook_after_the_early_detail_leaves_nothing_missed(
    world: World, hook: Hook, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        made = await early(world, hook, clock, daemon)
        await receive(daemon, made)
        assert await later(world, clock, daemon) == (1, 0, 0, 0)


async def test_what_is_given_up_early_is_missed_once(world: World, hook: Hook, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        hook.answers = {"1": 404}
        made = await early(world, hook, clock, daemon)
        assert ((await world.comparison()).lost, len(await world.unrecoverable())) == (1, 1)
        assert await later(world, clock, daemon) == (1, 1, 0, 0)
        await receive(daemon, made)
        assert await later(world, clock, daemon) == (1, 1, 1, 1)


@pytest.mark.parametrize("remedy", ["redelivery"])
async def test_a_redelivery_before_the_grace_is_over_was_missed(world: World, hook: Hook, clock: FakeClock) -> None:
    """The vendor did not send it by itself."""
    async with world.daemon() as daemon:
        await early(world, hook, clock, daemon)
        (redelivered,) = hook.again
        await receive(daemon, redelivered)
        assert await later(world, clock, daemon) == (1, 1, 0, 1)
        (event,) = await world.store.read(events.recent, missed=True)
        assert event.via == "redelivery"


async def test_a_time_in_which_the_hook_was_off_is_unrecoverable_and_nothing_is_claimed_meanwhile(
    world: World, hook: Hook, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        clock.advance(minutes=10)
        await daemon.run_source()
        last_good = clock()
        clock.advance(minutes=3)
        hook.active = False
        hook.deliver()
        for _ in range(2):
            clock.advance(minutes=10)
            await daemon.run_source()
            assert from_us((await world.stream()).watermark_us) == last_good
            assert "the hook is not active" in ((await world.stream()).parked_reason or "")
        hook.active = True
        clock.advance(minutes=10)
        back: datetime = clock()
        await daemon.run_source()
        assert from_us((await world.stream()).watermark_us) == back - timedelta(minutes=5)
        (loss,) = await world.unrecoverable()
        assert (from_us(loss.start_us), from_us(loss.end_us)) == (last_good, back)
        assert loss.reason == "subscription_inactive"
        clock.advance(minutes=10)
        await daemon.run_source()
        assert len(await world.unrecoverable()) == 1


async def test_a_limit_that_is_answered_403_waits_and_parks_nothing(world: World, hook: Hook, clock: FakeClock) -> None:
    hook.deliver()
    clock.advance(minutes=10)
    limited = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(clock().timestamp()))}
    answered = []

    def limit_once(request: httpx.Request) -> httpx.Response:
        answered.append(request)
        if len(answered) == 2:
            return httpx.Response(403, json={"message": "API rate limit exceeded"}, headers=limited)
        return hook.answer(request)

    world.client = httpx.AsyncClient(transport=httpx.MockTransport(limit_once))
    async with world.client, world.daemon() as daemon:
        await daemon.run_source()
        assert (await world.stream()).parked_reason is None
        assert len(await world.keys()) == 1
    assert HASTY.attempts > 1


@pytest.mark.parametrize("expected", [True, False])
async def test_a_lost_event_that_comes_is_counted_once(
    world: World, hook: Hook, clock: FakeClock, *, expected: bool
) -> None:
    """It was counted as expected a second time, and stayed lost."""
    made, gone = hook.deliver("push"), hook.deliver("push")
    assert made is not None
    assert gone is not None
    hook.answers |= {str(made["id"]): 404, str(gone["id"]): 404}
    clock.advance(minutes=10)
    async with world.daemon(keep_unsubscribed=True, types=["*"] if expected else ["issues.*"]) as daemon:
        await daemon.run_source()
        assert (await world.comparison()).lost == 2
        for _ in range(2):
            await receive(daemon, made)
        totals, losses = await world.totals(), (await world.report()).losses
        assert losses is not None
        assert await world.via() == {f"{HOOK}:{made['guid']}": "webhook"}
        assert (totals.expected, totals.missed) == ((2, 2) if expected else (0, 0))
        assert (losses.late, losses.recovered) == ((1, 1) if expected else (0, 0))
        assert totals.counts["duplicates"] == 1
        assert (await world.comparison()).lost == 1
        assert len(await world.unrecoverable()) == 1
        states = await world.store.read(lambda c: sorted(c.execute(select(MISSING.c.state)).scalars()))
        assert states == ["lost", "recovered"]


async def test_an_event_that_came_meanwhile_is_not_lost(world: World, hook: Hook) -> None:
    """The webhook is recorded while the provider answers that it no longer has the event."""
    made = hook.deliver()
    assert made is not None
    async with world.daemon() as daemon:
        await insert_rows(daemon, [made])
        (row,) = await daemon.runtime.read(
            missing.due, source_id=world.source_id, now_us=daemon.runtime.now_us, limit=9
        )
        await receive(daemon, made)
        args = {"error": "404", "now_us": daemon.runtime.now_us, "unit_us": 1_000_000}
        assert not await daemon.runtime.write(missing.give_up, row=row, **args)
        assert not await world.unrecoverable()
        assert (await world.comparison()).lost == 0


@pytest.mark.parametrize("reason", ["too_large", "closed"])
async def test_a_header_names_what_was_turned_away_unread(
    world: World, hook: Hook, clock: FakeClock, reason: str
) -> None:
    """GitHub's retry meets our 413 or 503. A stranger's request names what it can guess, and that is nothing."""
    made, lost = hook.deliver(), hook.deliver()
    assert made is not None
    assert lost is not None
    limits = {"disk_is_full": True} if reason == "closed" else {"body_limits": {"acme": 1}}
    async with world.daemon() as daemon, receiving(daemon, **limits) as url:
        genuine = webhook_of(daemon, made)
        async with httpx.AsyncClient(trust_env=False) as client:
            forged = [(name, b"1" * 36 if name == b"x-github-delivery" else value) for name, value in genuine.headers]
            for headers in (genuine.headers, forged):
                answer = await client.post(url, content=genuine.body, headers=list(headers))
                assert answer.status_code == (503 if reason == "closed" else 413)
        while len(kept := await daemon.runtime.read(quarantine.entries)) < 2:
            await asyncio.sleep(0.01)
        assert [row.reason for row in kept] == [reason] * 2
        clock.advance(minutes=10)
        await daemon.run_source()
        counts = (await world.totals()).counts
        assert (counts["missed_refused"], counts["missed_unexplained"]) == (1, 1)
