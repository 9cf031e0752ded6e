"""The storm's parts: the plan, the proxy, the lying vendor, the wrong clock."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import pytest
from shims import can_compile, compile_shim

from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest, serve_http
from storm.faults import OF_POSTGRES, Kind, plan
from storm.made_up import T0, at
from storm.proxy import Proxy, to_port
from storm.supervisor import ShiftedClock
from storm.vendor import ODD_EVERY, ODD_FIRST, ODD_FOR, LyingVendor, OddFormat
from storm.watcher import true_time

ALL = frozenset(Kind)


# --- the plan


def test_the_same_seed_gives_the_same_plan() -> None:
    one, same, other = (plan(seed, kills=40, restarts=9, kills_a_round=7, kinds=ALL) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(("kills", "restarts"), [(500, 100), (3, 1), (7, 0)])
def test_a_plan_has_the_kills_and_restarts_asked_for(kills: int, restarts: int) -> None:
    rounds = plan(5, kills=kills, restarts=restarts, kills_a_round=7, kinds=ALL)
    alone = [each.alone.kind for each in rounds if each.alone]
    steps = [*alone, *(step.kind for each in rounds for step in each.steps)]
    assert sum(len(each.kills) for each in rounds) + steps.count(Kind.KILL) == kills
    assert steps.count(Kind.RESTART) == max(restarts, alone.count(Kind.RESTART))


def test_every_kind_is_alone_and_among_others_in_a_long_plan() -> None:
    rounds = plan(5, kills=500, restarts=100, kills_a_round=7, kinds=ALL)
    wanted = ALL - {Kind.ODD_ROW}
    assert {each.alone.kind for each in rounds if each.alone} == wanted
    assert {step.kind for each in rounds for step in each.steps} == wanted - {Kind.KILL}


def test_a_store_without_a_server_has_no_faults_of_one() -> None:
    rounds = plan(5, kills=100, restarts=0, kills_a_round=7, kinds=ALL - OF_POSTGRES)
    steps = [step for each in rounds for step in (*each.steps, each.alone) if step]
    assert not {step.kind for step in steps} & OF_POSTGRES


# --- the proxy


@dataclass
class Origin:
    """A server behind the proxy, which counts what came."""

    came: list[str] = field(default_factory=list)

    async def answer(self, request: ApiRequest) -> ApiAnswer:
        self.came.append(request.body.decode())
        return ApiAnswer(status=200, body=b"yes")


@asynccontextmanager
async def behind_a_proxy() -> AsyncIterator[tuple[Origin, Proxy, httpx.AsyncClient]]:
    origin = Origin()
    async with serve_http(origin.answer, host="127.0.0.1", port=0, clock=lambda: T0) as url:
        async with Proxy(to_port(httpx.URL(url).port or 0)).serve() as proxy:
            address = f"http://127.0.0.1:{proxy.port}"
            async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=0.5) as client:
                yield origin, proxy, client


@pytest.mark.anyio
async def test_a_proxy_forwards_both_ways() -> None:
    async with behind_a_proxy() as (origin, _, client):
        answer = await client.post("/", content=b"one")
        assert (answer.text, origin.came) == ("yes", ["one"])


@pytest.mark.anyio
async def test_a_silent_connection_answers_nothing_and_stays_open() -> None:
    async with behind_a_proxy() as (origin, proxy, client):
        await client.post("/", content=b"one")
        assert proxy.fall_silent() == 1
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/", content=b"two")
        assert (await client.post("/", content=b"three")).text == "yes"  # a new connection
        assert origin.came == ["one", "three"]


@pytest.mark.anyio
async def test_a_proxy_that_swallows_answers_no_new_connection() -> None:
    async with behind_a_proxy() as (origin, proxy, client):
        proxy.swallows = True
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/", content=b"one")
        proxy.swallows = False
        assert (await client.post("/", content=b"two")).text == "yes"
        assert origin.came == ["two"]


@pytest.mark.anyio
async def test_a_cut_ends_the_request_under_way() -> None:
    async with behind_a_proxy() as (_, proxy, client):
        proxy.delay_s = 0.2
        request = asyncio.create_task(client.post("/", content=b"one"))
        await asyncio.sleep(0.1)
        assert proxy.cut() == 1
        with pytest.raises(httpx.TransportError):
            await request


@pytest.mark.anyio
async def test_an_answer_can_drip() -> None:
    async with behind_a_proxy() as (_, proxy, client):
        proxy.drip_s = 0.2
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert len(await reader.read(1000)) <= 16
        writer.close()
        with suppress(httpx.TransportError):
            await client.post("/", content=b"one")


@pytest.mark.anyio
async def test_what_was_sent_is_repeated_and_counted() -> None:
    async with behind_a_proxy() as (origin, proxy, client):
        await client.post("/", content=b"before")
        proxy.begin_capture()
        await asyncio.sleep(0.05)
        for body in (b'{"id":"evt_0a"}', b'{"id":"evt_0b"}'):
            await client.post("/", content=body)
        assert await proxy.repeat() == 1
        assert origin.came == ["before", *['{"id":"evt_0a"}', '{"id":"evt_0b"}'] * 2]
        assert proxy.repeated == {"evt_0a": 1, "evt_0b": 1}
        await client.post("/", content=b"after")
        assert await proxy.repeat() == 0


# --- the vendor


def make_vendor(count: int, now: list[datetime], *, a_second: int = 1) -> LyingVendor:
    vendor = LyingVendor(has_oddities=False, clock=lambda: now[0], seed=3)
    for number in range(count):
        vendor.emit("invoice.paid", occurred_at=at(number // a_second))
    return vendor


def list_all(vendor: LyingVendor, limit: int = 5) -> list[str]:
    """Walk the pages as a client does and return the keys."""
    keys: list[str] = []
    after: tuple[tuple[str, str], ...] = ()
    while True:
        params = (("limit", str(limit)), *after)
        headers = {"authorization": "Bearer sk_live_fake"}
        answer = vendor._answer(ApiRequest(method="GET", path="/v1/events", params=params, headers=headers))
        page: dict[str, Any] = json.loads(answer.body)
        keys += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            return keys
        after = (("starting_after", keys[-1]),)


def told(vendor: LyingVendor) -> set[str]:
    return {key for lie in vendor.told for key in lie.keys}


def test_an_honest_vendor_lists_everything_and_tells_no_lie() -> None:
    vendor = make_vendor(23, [at(60)])
    assert set(list_all(vendor)) == {event.key for event in vendor.events} == vendor.first_shown.keys()
    assert not vendor.told


@pytest.mark.parametrize(
    ("name", "value"), [("lacks", 0.3), ("empty", 0.4), ("rest_of_second", True)], ids=["lacks", "empty", "second"]
)
def test_a_lie_is_told_of_every_event_that_pages_lacked(name: str, value: object) -> None:
    vendor = make_vendor(40, [at(60)], a_second=4)
    setattr(vendor.lies, name, value)
    shown = set(list_all(vendor))
    assert told(vendor) == {event.key for event in vendor.events} - shown != set()
    vendor.lies = type(vendor.lies)()
    assert len(set(list_all(vendor))) == 40


def test_a_truncated_page_shows_nothing() -> None:
    vendor = make_vendor(4, [at(60)])
    vendor.lies.truncated = 1.0
    with pytest.raises(json.JSONDecodeError):
        list_all(vendor)
    assert not vendor.first_shown
    assert not vendor.told


def test_one_row_in_a_hundred_is_odd_for_a_while() -> None:
    now = [T0]
    vendor = LyingVendor(has_oddities=True, clock=lambda: now[0], seed=3)
    for _ in range(200):
        vendor.emit("invoice.paid")
    list_all(vendor)
    odd = vendor.events[ODD_FIRST]
    assert {event.key for event in vendor.events} - vendor.first_shown.keys() == {odd.key}
    now[0] += ODD_FOR
    list_all(vendor)
    assert vendor.first_shown[odd.key] == now[0]


@pytest.mark.parametrize(
    ("turn", "listed", "sent"),
    [
        (0, rb'"created":null', rb'"created":\d'),
        (1, rb'"x\\ud83d"', rb'"x\\ud83d"'),
        (2, rb'\{"object":"event"', rb'\{"id":"evt_'),
        (3, rb"\[{5000}\]{5000}", rb"\[{5000}\]{5000}"),
        (4, rb'"data":\{"object":null\}', rb'"data":\{"object":\{'),
        (5, rb"1e999", rb"1e999"),
    ],
)
def test_oddities_come_in_turn(turn: int, listed: bytes, sent: bytes) -> None:
    vendor = LyingVendor(has_oddities=True, clock=lambda: T0, seed=3)
    for _ in range(ODD_FIRST + ODD_EVERY * turn + 1):
        vendor.emit("invoice.paid")
    odd, rows = vendor.events[-1], OddFormat(lambda: T0)
    assert re.search(listed, rows.encode(odd))
    assert re.search(sent, rows.encode(odd, with_account=True))


# --- the clock


def test_a_process_obeys_the_wrong_clock_at_once(absent: Any, tmp_path: Path) -> None:
    if not can_compile():
        absent("gcc", "it is not on the PATH, and compiles what shifts the clock")
    clock = ShiftedClock(tmp_path / "clock", compile_shim("wrong_clock", tmp_path))
    program = "import time; print(time.time(), flush=True); input(); print(time.time(), time.monotonic())"
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=clock.environment, stdin=PIPE, stdout=PIPE, text=True
    )
    assert process.stdout is not None
    before = float(process.stdout.readline())
    clock.set(-86_400)
    wall, monotonic = map(float, process.communicate("\n")[0].split())
    assert before - 86_400 <= wall < before - 86_300
    assert monotonic <= time.monotonic()


@pytest.mark.parametrize(
    ("shown", "now", "true"),
    [
        (5, 6, 5),  # before the jump
        (3615, 16, 15),  # an hour ahead
        (25, 26, 25),  # right again
        (12, 16, 12),  # by the database's clock, while the process is an hour ahead
        (99, 30, 30),  # by no clock at all
    ],
)
def test_a_stamp_of_a_wrong_clock_is_put_right(shown: float, now: float, true: float) -> None:
    offsets = [(T0, timedelta(0)), (at(10), timedelta(hours=1)), (at(20), timedelta(0))]
    assert true_time(at(shown), offsets, at(now)) == at(true)
