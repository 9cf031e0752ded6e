"""Lists that are emptied as they are read, with a Telegram bot: an update is acknowledged only once it is durable."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from world import HASTY, FakeClock, World, new_fake

from gapless.domain import Mode, Purpose, from_us
from gapless.ledger.engine import Store
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.pages import as_lister
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.kit.errors import OptionsInvalid
from gapless_reconcilers.providers.telegram import Telegram, TelegramOptions

pytestmark = pytest.mark.anyio
TOKEN = "123456:made_up"


@dataclass
class Bot:
    """The Bot API as its page describes it: an offset forgets what came before it, a webhook is in the way."""

    updates: list[dict[str, Any]] = field(default_factory=list)
    webhook: str = ""
    offsets: list[int | None] = field(default_factory=list)
    breaks_after: int | None = None
    given: int = 0

    def add(self, *numbers: int) -> None:
        self.updates += [{"update_id": number, "message": {"text": "x"}} for number in numbers]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != f"/bot{TOKEN}/getUpdates":
            return httpx.Response(404, json={"ok": False, "description": "Not Found"})
        if self.webhook:
            return httpx.Response(409, json={"ok": False, "description": "Conflict: can't use getUpdates"})
        offset = request.url.params.get("offset")
        self.offsets.append(None if offset is None else int(offset))
        if offset is not None:
            self.updates = [update for update in self.updates if update["update_id"] >= int(offset)]
        self.given += 1
        if self.breaks_after is not None and self.given > self.breaks_after:
            return httpx.Response(502, content=b"<html>")
        return httpx.Response(200, content=json.dumps({"ok": True, "result": self.updates[:2]}).encode())


def make_bot(url: str, page_limit: int = 100) -> Provider:  # noqa: ARG001 - the signature that World wants
    return Telegram(TelegramOptions(token=Secret(TOKEN), api_base=url))


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
async def world(store: Store, clock: FakeClock, bot: Bot) -> AsyncIterator[World]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(bot.answer)) as client:
        world = World(store=store, clock=clock, fake=new_fake(clock), client=client, make=make_bot, mode=Mode.POLL)
        await world.open()
        yield world


async def test_all_is_recorded_and_complete_up_to_the_request(world: World, bot: Bot, clock: FakeClock) -> None:
    bot.add(1, 2, 3, 5, 8)
    async with world.daemon() as daemon:
        clock.advance(minutes=3)
        await daemon.run_source()
        assert await world.keys() == {"1", "2", "3", "5", "8"}
        assert bot.offsets == [None, 3, 6, 9]
        assert from_us((await world.stream()).watermark_us) == clock()
        assert await world.missed() == 0
        bot.add(9)
        clock.advance(minutes=3)
        await daemon.run_source()
        assert set((await world.via()).values()) == {"list"}
        assert bot.offsets[4:] == [9, 10]


async def test_a_batch_is_acknowledged_only_once_it_is_durable(world: World, bot: Bot, clock: FakeClock) -> None:
    bot.add(1, 2, 3, 4)
    bot.breaks_after = 1
    before = (await world.stream()).watermark_us
    async with world.daemon() as daemon:
        clock.advance(minutes=3)
        await daemon.run_source()
        stream = await world.stream()
        assert (stream.cursor, stream.watermark_us, stream.last_outcome) == ("3", before, "provider_unavailable")
        assert await world.keys() == {"1", "2"}
    bot.breaks_after = None
    async with world.daemon() as daemon:
        await daemon.run_source()
        assert await world.keys() == {"1", "2", "3", "4"}
        assert bot.offsets.count(None) == 1


async def test_what_nobody_wants_is_recorded_all_the_same_for_the_vendor_forgets_it(
    world: World, bot: Bot, clock: FakeClock
) -> None:
    """Also what occurred before the source's start: it was waiting there."""
    earlier = int((world.start - timedelta(hours=3)).timestamp())
    bot.updates.append({"update_id": 1, "message": {"date": earlier}})
    bot.updates.append({"update_id": 2, "poll": {}})
    async with world.daemon(types=["message"]) as daemon:
        clock.advance(minutes=3)
        await daemon.run_source()
        assert await world.keys() == {"1", "2"}
        assert await world.owed() == 0


async def test_an_odd_update_is_set_aside_and_acknowledged(world: World, bot: Bot, clock: FakeClock) -> None:
    bot.add(1, 2)
    bot.updates.insert(1, {"update_id": 11, "x" * 600: {}})
    bot.updates.sort(key=lambda update: int(update["update_id"]))
    async with world.daemon() as daemon:
        clock.advance(minutes=3)
        await daemon.run_source()
        assert await world.keys() == {"1", "2"}
        assert (await world.missing_open(), bot.updates) == (1, [])
        assert await world.complete_up_to() == world.start


async def test_an_update_without_an_id_is_another_shape(world: World, bot: Bot, clock: FakeClock) -> None:
    """It cannot be acknowledged, so nothing behind it could be read."""
    bot.updates += [{"update_id": None}]
    async with world.daemon() as daemon:
        clock.advance(minutes=3)
        await daemon.run_source()
        assert (await world.stream()).last_outcome == "unexpected_shape"


async def test_a_webhook_in_the_way_parks_the_source_and_says_what_to_do(
    world: World, bot: Bot, clock: FakeClock
) -> None:
    bot.webhook = "https://elsewhere.example/"
    async with world.daemon() as daemon:
        clock.advance(minutes=3)
        await daemon.run_source()
        reason = (await world.stream()).parked_reason or ""
        assert "while a webhook is set" in reason
        assert TOKEN not in reason


async def test_what_the_vendor_forgot_while_we_were_away_is_unrecoverable(
    world: World, bot: Bot, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        await daemon.run_source()
        since = clock()
        clock.advance(hours=30)
        bot.add(7)
        await daemon.run_source()
        (loss,) = await world.unrecoverable()
        assert (from_us(loss.start_us), from_us(loss.end_us)) == (since, clock() - timedelta(hours=24))
        assert await world.keys() == {"7"}


async def test_the_token_is_in_no_error(world: World) -> None:
    async with world.daemon() as daemon:
        client = ProviderClient(
            world.client,
            daemon.runtime.sources,
            "acme",
            clock=world.clock,
            metrics=daemon.runtime.metrics,
            rate=10,
            retry=HASTY,
        )
        request = httpx.Request("GET", f"{world.url}/botTOKEN/getNothing")
        with pytest.raises(Exception, match="knows no bot") as raised:
            await client.send(request, Purpose.HEARTBEAT)
        assert TOKEN not in f"{raised.value!r} {request.url}"
        with pytest.raises(OptionsInvalid, match="cannot be audited"):
            as_lister(daemon.source.provider)
