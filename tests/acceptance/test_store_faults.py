"""`gapless status` says what is wrong with the store, and what to do, while it lasts."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from half_open import HalfOpenProxy
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Gapless, free_port, running, until
from sqlalchemy.engine import make_url

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def told(daemon: Gapless) -> list[str]:
    """Return the kinds of all troubles of the store, as the command shows them."""
    code, out, err = await daemon.call("status", "--json")
    assert code in (0, 1), err
    found = [each for each in json.loads(out)["troubles"] if each["kind"].startswith("store_")]
    assert all(each["text"] and each["next"] for each in found)
    assert code == 1 or not found
    return [each["kind"] for each in found]


async def is_told(daemon: Gapless, *kinds: str) -> bool:
    return await told(daemon) == list(kinds)


async def test_status_tells_of_a_locked_and_a_missing_file(sqlite_url: str, tmp_path: Path) -> None:
    fake, path = FakeProvider(StripeFormat(), retries_s=(0.5,) * 60), Path(make_url(sqlite_url).database or "")
    async with fake.serve() as api, running(Gapless(tmp_path, sqlite_url, api, None)) as daemon:
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        assert await told(daemon) == []
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            event = fake.emit("invoice.paid")
            await until(lambda: is_told(daemon, "store_locked"), within_s=40)
            await until(lambda: any(push.status == 503 for push in fake.pushes))
            other.execute("ROLLBACK")
        await until(lambda: is_told(daemon), within_s=40)
        aside = await asyncio.to_thread(path.rename, path.with_name("aside.db"))
        code, _, err = await daemon.call("status")
        assert (code, "put the file back" in err) == (3, True)
        await asyncio.to_thread(aside.rename, path)
        await until(lambda: is_told(daemon), within_s=40)
        assert event.key in await daemon.ledger_ids()


async def test_a_start_waits_for_postgres(postgres_url: str, tmp_path: Path) -> None:
    fake, port, url = FakeProvider(StripeFormat()), free_port(), make_url(postgres_url)
    beside = url.set(database="postgres").render_as_string(hide_password=False)
    through = url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    await run_sql(beside, f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
    async with fake.serve() as api:
        daemon = Gapless(tmp_path, through, api, None)
        await daemon.spawn()
        try:
            await until(lambda: "cannot be used" in daemon.log.read_text())  # nobody listens
            async with HalfOpenProxy(postgres_url).serve(port):
                await until(lambda: "PostgreSQL is read-only" in daemon.log.read_text())
                await run_sql(beside, f"ALTER DATABASE {url.database} RESET default_transaction_read_only")
                await until(daemon.is_ready)
                assert "store_awaited" in daemon.log.read_text()
                assert await daemon.end() == 0
        finally:
            await daemon.kill()


async def test_a_start_that_waits_can_be_stopped(tmp_path: Path) -> None:
    daemon = Gapless(tmp_path, "postgresql://127.0.0.1:1/ledger", "http://127.0.0.1:1", None)
    await daemon.spawn()
    await until(lambda: "store_awaited" in daemon.log.read_text())
    assert await daemon.end() == 0
