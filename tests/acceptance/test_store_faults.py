"""`gapless status` says what is wrong with the store, and what to do, while it lasts."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from half_open import HalfOpenProxy
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Gapless, free_port, running, until
from sqlalchemy.engine import make_url

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def told(daemon: Gapless) -> dict[str, str]:
    """Return all troubles of the store as the command shows them: what to do, by what is wrong."""
    code, out, err = await daemon.call("status", "--json")
    assert code in (0, 1), err
    found = [each for each in json.loads(out)["troubles"] if each["kind"].startswith("store_")]
    assert code == 1 or not found
    return {each["text"]: each["next"] for each in found}


async def tells(daemon: Gapless, what: str, advice: str) -> bool:
    return any(what in text and advice in wanted for text, wanted in (await told(daemon)).items())


async def is_well(daemon: Gapless) -> bool:
    return await told(daemon) == {}


@asynccontextmanager
async def sqlite_daemon(url: str, folder: Path) -> AsyncIterator[tuple[Gapless, FakeProvider, Path]]:
    """A daemon that gets webhooks, and the path of its ledger."""
    fake = FakeProvider(StripeFormat(), retries_s=(0.5,) * 60)
    async with fake.serve() as api, running(Gapless(folder, url, api, None)) as daemon:
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        assert await is_well(daemon)
        yield daemon, fake, Path(make_url(url).database or "")
        event = fake.emit("invoice.paid")
        await until(lambda: is_recorded(daemon, event.key))
        assert await is_well(daemon)


async def is_recorded(daemon: Gapless, key: str) -> bool:
    return key in await daemon.ledger_ids()


async def test_status_tells_of_a_locked_file(sqlite_url: str, tmp_path: Path) -> None:
    async with sqlite_daemon(sqlite_url, tmp_path) as (daemon, fake, path):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            fake.emit("invoice.paid")
            said = "Another program holds a lock on the ledger, so webhooks are answered 503", "End that program."
            await until(lambda: tells(daemon, *said), within_s=40)
            await until(lambda: any(push.status == 503 for push in fake.pushes))
            other.execute("ROLLBACK")
        await until(lambda: is_well(daemon), within_s=40)


async def test_status_tells_of_a_missing_file(sqlite_url: str, tmp_path: Path) -> None:
    async with sqlite_daemon(sqlite_url, tmp_path) as (daemon, _, path):
        path.rename(aside := path.with_name("aside.db"))
        code, _, err = await daemon.call("status")
        assert (code, "ledger.db is gone, and process" in err, "put the file back" in err) == (3, True, True)
        aside.rename(path)
        await until(lambda: is_well(daemon), within_s=40)


async def test_status_tells_of_a_replaced_file(sqlite_url: str, tmp_path: Path) -> None:
    """A copy in its place, as by a restore under a running daemon. Who opened it would delete the daemon's log."""
    async with sqlite_daemon(sqlite_url, tmp_path) as (daemon, fake, path):
        aside = replace(path)
        fake.emit("invoice.paid")
        for command in ("status", "check"):
            code, out, err = await daemon.call(command)
            said = out + err
            assert (code, "ledger.db is another file than process" in said, "put the file back" in said) == (
                3 if command == "status" else 1, True, True
            )  # fmt: skip
        await until(lambda: any(push.status == 503 for push in fake.pushes))
        aside.replace(path)
        await until(lambda: is_well(daemon), within_s=40)


async def test_status_tells_of_a_replaced_log(sqlite_url: str, tmp_path: Path) -> None:
    async with sqlite_daemon(sqlite_url, tmp_path) as (daemon, fake, path):
        log = path.with_name(path.name + "-wal")
        aside = replace(log)
        fake.emit("invoice.paid")
        said = (
            "The ledger's file is not the one that Gapless has open, so webhooks are answered 503",
            "Put the file back",
        )
        await until(lambda: tells(daemon, *said), within_s=40)
        await until(lambda: any(push.status == 503 for push in fake.pushes))
        aside.replace(log)
        await until(lambda: is_well(daemon), within_s=40)


def replace(file: Path) -> Path:
    """Put a copy in the place of `file`, and return where that is now."""
    shutil.copy(file, copy := file.with_name("copy"))
    aside = file.rename(file.with_name("aside"))
    copy.rename(file)
    return aside


async def test_status_tells_of_a_silent_postgres(postgres_url: str, tmp_path: Path) -> None:
    """Connections are accepted, and nothing comes back; when that is over, all goes on by itself."""
    fake, port = FakeProvider(StripeFormat(), retries_s=(0.5,) * 60), free_port()
    proxy = HalfOpenProxy(postgres_url)
    limits = {"GAPLESS_STORE__CONNECT_WITHIN": "1s", "GAPLESS_STORE__COMMAND_WITHIN": "1s"}
    async with proxy.serve(port), fake.serve() as api:
        daemon = Gapless(tmp_path, proxy.url, api, None, environment=limits)
        async with running(daemon):
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            assert await is_well(daemon)
            proxy.silent = True
            proxy.fall_silent()
            event = fake.emit("invoice.paid")
            await until(lambda: any(push.status == 503 for push in fake.pushes))
            code, _, err = await daemon.call("status")
            assert (code, "PostgreSQL did not accept a connection within 1 s" in err) == (3, True)
            assert "see whether it runs and can be reached from here" in err
            proxy.silent = False
            await until(lambda: is_recorded(daemon, event.key))
            assert await is_well(daemon)


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
