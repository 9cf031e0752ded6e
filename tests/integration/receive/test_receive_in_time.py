"""A webhook is answered within `answer_within`, whatever the store does: durable, or 503 and tried again."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from half_open import HalfOpenProxy
from sqlalchemy.engine import make_url

from gapless.ledger import tallies
from gapless.ledger.engine import Store, StoreLimits, open_store
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions

pytestmark = pytest.mark.anyio
SOON = timedelta(milliseconds=300)


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Another program holds a lock that every webhook needs."""
    if url.startswith("sqlite"):
        other = sqlite3.connect(make_url(url).database or "", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.close()
        return
    session = await asyncpg.connect(url)
    try:
        await session.execute("BEGIN; LOCK TABLE event")
        yield
    finally:
        await session.close()


async def test_webhooks_behind_a_lock_are_503_in_time(serve: Any, store_url: str) -> None:
    """The first one's commit is under way and takes effect later; the others are withdrawn."""
    async with serve(answer_within=SOON) as setup:
        assert (await setup.post(setup.event("evt_0"))).status_code == 200
        async with locked(store_url):
            first = asyncio.create_task(setup.post(setup.event("evt_first")))
            await setup.counts("recorder_batch_size_sum", 2)
            answers = await asyncio.gather(first, *(setup.post(setup.event(f"evt_{n}")) for n in range(1, 4)))
            assert [answer.status_code for answer in answers] == [503] * 4
            assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
            assert setup.counted("webhooks_total", source="acme", outcome="unavailable") == 3
            assert setup.receiver.runtime.writer.queued == 0
        await setup.counts("webhooks_total", 1, source="acme", outcome="recorded_late")
        assert set(await setup.events()) == {"evt_0", "evt_first"}
        assert (await setup.post(setup.event("evt_1"))).status_code == 200
        assert setup.counted("webhooks_total", source="acme", outcome="unavailable") == 3


async def test_a_new_stream_behind_a_lock_is_503_in_time(serve: Any, store_url: str) -> None:
    """Its row would have to be made first."""
    async with serve(answer_within=SOON) as setup:
        async with locked(store_url):
            holding = asyncio.create_task(setup.receiver.runtime.writer.submit(lambda c: c.exec_driver_sql(TOUCH)))
            assert (await setup.post(setup.event("evt_1"))).status_code == 503
        await asyncio.gather(holding, return_exceptions=True)
        assert (await setup.post(setup.event("evt_1"))).status_code == 200


TOUCH = "UPDATE event SET webhook_count = webhook_count"


async def test_a_silent_store_is_503_in_time_and_counts_once(serve_on: Any, postgres_url: str) -> None:
    limits = StoreLimits(connect_within=timedelta(seconds=1), command_within=timedelta(milliseconds=500), connections=4)
    async with HalfOpenProxy(postgres_url).serve() as proxy:
        store = open_store(proxy.url, limits)
        try:
            async with serve_on(store, answer_within=SOON) as setup:
                assert (await setup.post(setup.event("evt_0"))).status_code == 200
                proxy.on_sent = lambda part: b"COMMIT" in part
                assert (await setup.post(setup.event("evt_1"))).status_code == 503
                await setup.counts("webhooks_total", 1, source="acme", outcome="recorded_late")
                assert (await setup.post(setup.event("evt_2"))).status_code == 200
                assert await setup.events() == {"evt_0": 1, "evt_1": 1, "evt_2": 1}
                found = await store.read(tallies.totals, source_id=setup.source.id)
                assert (found.counts["by_webhook"], found.counts["duplicates"]) == (3, 0)
        finally:
            await store.close()


async def test_evidence_counts_into_the_time(serve: Any) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    provider = PayPal(PayPalOptions(webhook_id=("WH",), client_id="c", client_secret=Secret("s")))
    async with httpx.AsyncClient(transport=httpx.MockTransport(never)) as vendor:
        async with serve(provider=provider, vendor=vendor, answer_within=SOON) as setup:
            headers = {
                "paypal-transmission-id": "T",
                "paypal-transmission-time": "2026-11-20T12:00:00Z",
                "paypal-transmission-sig": "AAAA",
                "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-1",
                "paypal-auth-algo": "SHA256withRSA",
            }
            async with asyncio.timeout(4):  # an evidence fetch may take five seconds
                answer = await setup.client.post("/webhooks/acme", content=b"{}", headers=headers)
            assert answer.status_code == 503


def move(path: Path, name: str) -> None:
    path.replace(path.with_name(name))


async def test_a_ledger_file_that_is_gone_is_noticed_before_a_2xx(serve_on: Any, sqlite_url: str) -> None:
    """An open file lives on without its name: every commit would succeed and be lost."""
    path = Path(make_url(sqlite_url).database or "")
    shutil.copy(path, path.with_name("other.db"))
    store: Store = open_store(sqlite_url)
    try:
        async with serve_on(store) as setup:
            assert (await setup.post(setup.event("evt_0"))).status_code == 200
            move(path, "aside.db")
            assert (await setup.post(setup.event("evt_1"))).status_code == 503
            move(path.with_name("other.db"), path.name)
            assert (await setup.post(setup.event("evt_2"))).status_code == 503
            move(path.with_name("aside.db"), path.name)
            assert (await setup.post(setup.event("evt_3"))).status_code == 200
            log = path.with_name(path.name + "-wal")
            move(log, "aside-wal")
            assert (await setup.post(setup.event("evt_4"))).status_code == 503
            move(log.with_name("aside-wal"), log.name)
            assert (await setup.post(setup.event("evt_5"))).status_code == 200
    finally:
        await store.close()
