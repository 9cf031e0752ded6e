"""A real pgbouncer before PostgreSQL: own sessions work, shared ones are refused in one sentence."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from sqlalchemy.engine import make_url

from gapless.cli.main import main
from gapless.ledger import Connection, streams
from gapless.ledger.engine import StoreInvalid, open_store

pytestmark = pytest.mark.anyio
INI = """
[databases]
{name} = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""
Pooled = Callable[[str], str]


@pytest.fixture
def pooled(postgres_url: str, absent: Callable[[str, str], NoReturn], tmp_path: Path) -> Iterator[Pooled]:
    """`pooled(mode)` starts a pgbouncer in that pool mode and returns the address of the ledger through it."""
    if shutil.which("pgbouncer") is None:
        absent("pgbouncer", "it is not on the PATH; install it (Debian: apt-get install pgbouncer)")
    with ExitStack() as stack:
        yield lambda mode: stack.enter_context(_running(postgres_url, mode, tmp_path))


@contextmanager
def _running(url: str, mode: str, folder: Path) -> Iterator[str]:
    address = make_url(url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = address.host or str(address.query.get("host", "127.0.0.1"))
    user = f"user={address.username}" + (f" password={address.password}" if address.password else "")
    server = f"host={host} port={address.port or 5432} {user}"
    ini = folder / "pgbouncer.ini"
    ini.write_text(INI.format(name=address.database, server=server, listen=port, mode=mode))
    owner = Path(host).owner() if host.startswith("/") else "nobody"
    as_other = ["-u", owner] if os.geteuid() == 0 else []  # it refuses to run as root
    with subprocess.Popen(["pgbouncer", "-q", *as_other, str(ini)], stderr=subprocess.PIPE) as process:
        try:
            _wait_for(port, process)
            through = address.set(host="127.0.0.1", port=port, query={}, password=None)
            yield through.render_as_string(hide_password=False)
        finally:
            process.terminate()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.01)
    raise AssertionError("pgbouncer does not listen")


def touch(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE source SET interval_us = interval_us")


async def test_pgbouncer_with_sessions_works(pooled: Pooled) -> None:
    store = open_store(pooled("session"))
    try:
        for _ in range(2):
            await store.write(touch)
            assert await store.read(streams.streams, source_id=1) == []
        assert await store.write(lambda c: c.exec_driver_sql("SHOW lock_timeout").scalar_one()) == "5s"
    finally:
        await store.close()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_pgbouncer_that_shares_sessions_is_refused(pooled: Pooled, mode: str) -> None:
    store = open_store(pooled(mode))
    try:
        for run in (store.read, store.write):
            with pytest.raises(StoreInvalid, match="set pool_mode = session in pgbouncer") as refused:
                await run(touch)
            assert "\n" not in str(refused.value)
    finally:
        await store.close()


def test_status_says_that_pgbouncer_shares_sessions(pooled: Pooled, tmp_path: Path) -> None:
    config = tmp_path / "gapless.toml"
    config.write_text('[store]\nurl_env = "STORE_URL"\n')
    runner = CliRunner(env={"STORE_URL": pooled("transaction")})
    done = runner.invoke(main, ["--config", str(config), "status"])
    assert done.exit_code == 2
    assert "set pool_mode = session in pgbouncer, or let the url name PostgreSQL itself" in done.output
