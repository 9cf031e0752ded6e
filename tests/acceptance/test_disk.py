"""A full disk: webhooks are answered 503, no accepted one is lost, and no restart is needed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DISK = 32 << 20
MIN_FREE = 8 << 20


@pytest.fixture
def disk(absent: Callable[[str, str], NoReturn], tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        absent("tmpfs", "only root on Linux can mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)], check=False)
    if mounted.returncode != 0:
        absent("tmpfs", "mount is not permitted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_webhooks_get_503_while_less_than_min_free_is_left(disk: Path, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, f"sqlite:///{disk}/ledger.db", api, consumer, min_free=f"{MIN_FREE}B")
        async with running(daemon):
            await _fill(disk, leave=MIN_FREE // 2)
            await until(lambda: _is_answered(daemon, fake, 503))
            (disk / "ballast").unlink()
            await until(lambda: _is_answered(daemon, fake, 200))


async def test_webhooks_accepted_before_a_full_disk_are_kept(disk: Path, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(padding=2000), retries_s=(0.5,) * 60)
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, f"sqlite:///{disk}/ledger.db", api, consumer, min_free="0B")
        async with running(daemon):
            endpoint = fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            await _fill(disk, leave=2 << 20)
            async with asyncio.timeout(120):
                while not any(push.status == 503 for push in fake.pushes):
                    fake.emit("invoice.paid")
                    await asyncio.sleep(0.002)
            endpoint.enabled = False
            await fake.settle()
            acknowledged = {push.event.key for push in fake.pushes if push.status == 200}
            await daemon.kill()
            (disk / "ballast").unlink()
            kept = await daemon.ledger_ids()
            await daemon.start()
            await until(lambda: {event.key for event in fake.events} <= consumer.ids)

            assert acknowledged
            assert acknowledged <= kept
            assert consumer.changed_ids == {}


async def test_a_daemon_resumes_when_a_full_disk_has_space_again(disk: Path, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(padding=2000), retries_s=(0.5,) * 60)
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, f"sqlite:///{disk}/ledger.db", api, consumer, min_free="0B")
        async with running(daemon):
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            await _fill(disk, leave=2 << 20)
            async with asyncio.timeout(120):
                while not any(push.status == 503 for push in fake.pushes):
                    fake.emit("invoice.paid")
                    await asyncio.sleep(0.002)
            await asyncio.sleep(2)
            (disk / "ballast").unlink()
            truth = {event.key for event in fake.events}
            await until(lambda: truth <= consumer.ids)

            assert await daemon.is_ready()
            assert await daemon.ledger_ids() == truth


async def _fill(disk: Path, *, leave: int) -> None:
    """Fill the disk except for `leave` bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, free - leave)


async def _is_answered(daemon: Gapless, fake: FakeProvider, status: int) -> bool:
    """Return True if a new webhook is answered `status`; every 503 must have a `Retry-After`."""
    endpoint = fake.endpoints[0] if fake.endpoints else fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
    message = fake.vendor_format.message(
        fake.emit("invoice.paid", push=False), endpoint, datetime.now(UTC), genuine=True
    )
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(daemon.public, content=message.body, headers=dict(message.headers))
    assert answer.status_code != 503 or answer.headers["retry-after"].isdigit()
    return answer.status_code == status
