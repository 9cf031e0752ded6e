"""The real process on a machine whose clock is wrong, jumps, and is corrected: `faketime` moves it while it runs.

Lengths of time are left alone, as a real machine does (`FAKETIME_DONT_FAKE_MONOTONIC`).
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy import select

from gapless.ledger.tables import STREAM, UNRECOVERABLE
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SHIM = "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1"
TOLERANT = 'tolerance = "1h"'
"""Signatures are judged by the machine's clock, so with a wrong one webhooks would be refused."""


class MachineClock:
    """The clock of a machine of its own, as far ahead of the real one as it is `set` to be."""

    def __init__(self, shim: str, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": shim,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(timedelta(0))

    def set(self, ahead: timedelta) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead.total_seconds():+.0f}\n")
        fresh.replace(self._file)


@pytest.fixture
def machine(absent: Callable[[str, str], NoReturn], tmp_path: Path) -> Callable[[str], MachineClock]:
    """Makes the clock of a machine, by its name."""
    shim = next((path for cpu in ("x86_64", "aarch64") if Path(path := SHIM.format(cpu)).exists()), None)
    if shim is None:
        absent("faketime", "libfaketime is not where Debian installs it")
    return lambda name: MachineClock(shim, tmp_path / f"{name}.time")


def failing_once(consumer: Consumer) -> Callable[[str], int]:
    return lambda key: 200 if len(consumer.got[key]) > 1 else 500


HOUR, YEAR = timedelta(hours=1), timedelta(days=365)
RIGHT = timedelta(0)


@pytest.mark.parametrize("course", [(HOUR, RIGHT, -HOUR), (YEAR, RIGHT)], ids=["an hour", "a year"])
async def test_a_clock_that_jumps_while_it_runs_stops_nothing(
    course: tuple[timedelta, ...], sqlite_url: str, tmp_path: Path, machine: Callable[[str], MachineClock]
) -> None:
    fake, clock, consumer = FakeProvider(StripeFormat()), machine("one"), Consumer()
    consumer.answers = failing_once(consumer)
    async with consumer.serve(), fake.serve() as api:
        async with running(Gapless(tmp_path, sqlite_url, api, consumer, environment=clock.environment)) as daemon:
            for jumps, ahead in enumerate(course, 1):
                clock.set(ahead)
                await until(lambda jumps=jumps: has_jumped(daemon, jumps))
                event = fake.emit("invoice.paid")  # there is no endpoint: only the list shows it
                await until(lambda key=event.key: len(consumer.got[key]) > 1)

            assert consumer.ids == await daemon.ledger_ids() == {event.key for event in fake.events}
            assert consumer.changed_ids == {}
            assert await daemon.read(lambda connection: connection.execute(select(UNRECOVERABLE)).all()) == []


async def test_a_restart_believes_no_time_of_the_future(
    sqlite_url: str, tmp_path: Path, machine: Callable[[str], MachineClock]
) -> None:
    fake, clock, consumer = FakeProvider(StripeFormat()), machine("one"), Consumer(answers=lambda _key: 500)
    clock.set(3 * HOUR)
    async with consumer.serve(), fake.serve() as api:
        daemon = Gapless(tmp_path, sqlite_url, api, consumer, environment=clock.environment)
        async with running(daemon):
            waiting = fake.emit("invoice.paid")
            await until(lambda: waiting.key in consumer.ids)
            await until(lambda: is_run(daemon))
            await daemon.kill()
            clock.set(RIGHT)
            code, shown, _ = await daemon.call("status")
            assert (code, "Stored times lie in the future" in shown) == (1, True), shown
            assert "Deliveries are due further ahead" in shown
            consumer.answers = lambda _key: 200
            tried = len(consumer.got[waiting.key])
            await daemon.start()
            event = fake.emit("invoice.paid")
            await until(lambda: event.key in consumer.ids and len(consumer.got[waiting.key]) > tried)

            assert "due_times_ahead" in daemon.log.read_text()
            counted = (await daemon.metrics())["gapless_due_times_ahead_total"]
            assert {kind for ((_, kind),) in counted} == {"source", "delivery"}


async def test_a_first_start_with_a_clock_ahead_loses_nothing(
    sqlite_url: str, tmp_path: Path, machine: Callable[[str], MachineClock]
) -> None:
    fake, clock, consumer = FakeProvider(StripeFormat()), machine("one"), Consumer()
    clock.set(timedelta(minutes=10))
    async with consumer.serve(), fake.serve() as api:
        daemon = Gapless(tmp_path, sqlite_url, api, consumer, options=TOLERANT, environment=clock.environment, since="")
        async with running(daemon):
            missed = [fake.emit("invoice.paid") for _ in range(10)]
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            pushed = [fake.emit("invoice.paid") for _ in range(10)]
            await until(lambda: {event.key for event in missed + pushed} <= consumer.ids)
            code, shown, _ = await daemon.call("status")

            assert await daemon.missed() == 10
            assert (code, "Our clock is 10m ahead of the provider's." in shown) == (1, True), shown


async def test_replicas_with_different_clocks_deliver_once(
    postgres_url: str, tmp_path: Path, machine: Callable[[str], MachineClock]
) -> None:
    fake, consumer = FakeProvider(StripeFormat()), Consumer()
    consumer.answers = failing_once(consumer)
    ahead, right = machine("ahead"), machine("right")
    ahead.set(timedelta(minutes=10))
    async with consumer.serve(), fake.serve() as api:
        one, two = (
            Gapless(tmp_path, postgres_url, api, consumer, options=TOLERANT, environment=clock.environment)
            for clock in (ahead, right)
        )
        async with running(one), running(two):
            for daemon in (one, two):
                fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            for _ in range(20):
                fake.emit("invoice.paid")
            truth = {event.key for event in fake.events}
            await until(lambda: all(len(consumer.got[key]) > 1 for key in truth))
            await asyncio.sleep(1)

            assert {key: len(marks) for key, marks in consumer.got.items()} == dict.fromkeys(truth, 2)
            (offset,) = (await one.metrics())["gapless_clock_offset_seconds"].values()
            assert offset == pytest.approx(600, abs=10)
            code, shown, _ = await two.call("status")
            assert (code, "ahead of the database's: it may refuse genuine webhooks" in shown) == (1, True), shown
            assert "Synchronise the clock (NTP)" in shown


async def has_jumped(daemon: Gapless, times: int) -> bool:
    return (await daemon.metrics())["gapless_clock_jumps_total"][()] >= times


async def is_read(daemon: Gapless) -> bool:
    row = await daemon.read(lambda connection: connection.execute(select(STREAM.c.last_complete_pass_us)).scalar())
    return row is not None


async def is_run(daemon: Gapless) -> bool:
    """Return True if the first run of the source has ended, so that it is due again at a time that is stored."""
    return bool((await daemon.metrics()).get("gapless_poll_interval_seconds"))
