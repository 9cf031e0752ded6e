"""The real process on a machine whose clock is wrong, jumps, and is corrected: `faketime` moves it while it runs.

Lengths of time are left alone, as a real machine does (`FAKETIME_DONT_FAKE_MONOTONIC`).
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from outside import Consumer, Gapless, running, until

from gapless.ledger import snapshot
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
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


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=365)], ids=["hour", "year"])
async def test_a_clock_that_jumps_and_is_corrected_stops_nothing(
    jump: timedelta, sqlite_url: str, tmp_path: Path, machine: Callable[[str], MachineClock]
) -> None:
    fake, clock, consumer = FakeProvider(StripeFormat()), machine("one"), Consumer()
    consumer.answers = failing_once(consumer)
    async with consumer.serve(), fake.serve() as api:
        async with running(Gapless(tmp_path, sqlite_url, api, consumer, environment=clock.environment)) as daemon:
            for ahead in (timedelta(0), jump, timedelta(0), -jump, timedelta(0)):
                clock.set(ahead)
                await until(lambda: _jumps(daemon, 0 if not ahead else 1), within_s=5)
                missed = fake.emit("invoice.paid")  # no endpoint yet: only the list shows it
                await until(lambda key=missed.key: len(consumer.got[key]) > 1, within_s=8)

            assert consumer.ids == {event.key for event in fake.events}
            (report,) = (await daemon.read(_losses),)
            assert report == 0


async def _jumps(daemon: Gapless, at_least: int) -> bool:
    return sum((await daemon.metrics())["gapless_clock_jumps_total"].values()) >= at_least


def _losses(connection: snapshot.Connection) -> int:
    return connection.exec_driver_sql("SELECT count(*) FROM unrecoverable").scalar_one()
