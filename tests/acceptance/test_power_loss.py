"""The power fails: what was not synced may be gone, and every acknowledged webhook is still there.

`kill -9` leaves what was written in the page cache, so it says nothing about this.
"""

import asyncio
import random
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from outside import WEBHOOK_SECRET, Gapless, running
from powerloss import Disk, steps
from shims import can_compile, compile_shim

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
WEBHOOKS = 600
SENDERS = 4
POINTS = 200
"""Moments at which the power fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What the process wrote, and how much of that was recorded when each webhook was acknowledged."""

    log: bytes
    acknowledged: list[tuple[int, str]]
    ledger: str

    def known_at(self, end: int) -> set[str]:
        """Return the keys that were acknowledged before the record had this size."""
        return {key for _, key in self.acknowledged[: bisect_right(self.acknowledged, (end, "\uffff"))]}


@pytest.fixture
async def recording(tmp_path: Path, absent: Callable[[str, str], NoReturn]) -> Recording:
    """A daemon that takes webhooks while its writes are recorded."""
    if not can_compile():
        absent("gcc", "it is not on the PATH, and compiles what records the writes")
    fake, log, folder = FakeProvider(StripeFormat()), tmp_path / "disk.log", tmp_path / "disk"
    folder.mkdir()
    watch = {"LD_PRELOAD": str(compile_shim("disk_log", tmp_path)), "DISK_LOG": str(log), "DISK_FOLDER": str(folder)}
    async with fake.serve() as api:
        daemon = Gapless(tmp_path, f"sqlite:///{folder}/ledger.db", api, environment=watch)
        async with running(daemon):
            acknowledged = await send(fake, daemon.public, log)
    return Recording(log=log.read_bytes(), acknowledged=sorted(acknowledged), ledger=f"{folder}/ledger.db")


async def send(fake: FakeProvider, url: str, log: Path) -> list[tuple[int, str]]:
    """Send webhooks, and note for each that was acknowledged the size of the record at that moment."""
    events = iter([fake.emit("invoice.paid", push=False) for _ in range(WEBHOOKS)])
    endpoint = FakeEndpoint(number=0, url=url, secret=WEBHOOK_SECRET, types=("*",), connect=False)
    acknowledged: list[tuple[int, str]] = []

    async def sender(client: httpx.AsyncClient) -> None:
        for event in events:
            message = fake.vendor_format.message(event, endpoint, fake.clock(), genuine=True)
            answer = await client.post(url, content=message.body, headers=dict(message.headers))
            assert answer.is_success, answer.text
            acknowledged.append((log.stat().st_size, event.key))  # noqa: ASYNC240 - at once

    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await asyncio.gather(*(sender(client) for _ in range(SENDERS)))
    return acknowledged


def losses(recording: Recording, folder: Path, *, syncs: bool) -> Iterator[set[str]]:
    """Yield, for each moment at which the power fails, the acknowledged keys that the ledger then lacks."""
    chance, disk = random.Random(11), Disk(syncs=syncs)
    first = recording.acknowledged[0][0]
    moments = iter(sorted(chance.randrange(first, len(recording.log)) for _ in range(POINTS)))
    moment, end = next(moments), 0
    for step in steps(recording.log):
        while step.end > moment:
            yield recording.known_at(end) - keys_in(disk.after_power_loss(chance), recording.ledger, folder)
            moment = next(moments, len(recording.log) + 1)
        disk.take(step)
        end = step.end


def keys_in(files: dict[str, bytes], ledger: str, folder: Path) -> set[str]:
    """Return the keys that SQLite finds in these files."""
    for suffix in ("", "-wal"):
        (folder / f"after.db{suffix}").write_bytes(files.get(ledger + suffix, b""))
    (folder / "after.db-shm").unlink(missing_ok=True)
    connection = sqlite3.connect(folder / "after.db")
    try:
        return {key for (key,) in connection.execute("SELECT key FROM event")}
    except sqlite3.DatabaseError:
        return set()
    finally:
        connection.close()


async def test_no_acknowledged_webhook_is_lost_when_the_power_fails(recording: Recording, tmp_path: Path) -> None:
    lost = list(losses(recording, tmp_path, syncs=True))
    assert len(lost) == POINTS
    assert [keys for keys in lost if keys] == []
    assert any(losses(recording, tmp_path, syncs=False)), "a disk that syncs nothing must lose some"
