"""Keeps a daemon running as a service manager does: started again whenever it ends. Its clock can be wrong."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from outside import Gapless

from gapless_reconcilers.testing.fake import utc_now

AGAIN_AFTER_S = 0.5
"""Seconds before a daemon that ended by itself is started again."""
READY_WITHIN_S = 30.0
LAST_WORDS = 300


@dataclass(slots=True)
class ShiftedClock:
    """The clock of the daemon: right, or wrong by the seconds in a file, which may change while it runs."""

    file: Path
    library: Path | None
    """What the daemon preloads (`wrong_clock.c`); None: its clock cannot be made wrong."""
    offsets: list[tuple[datetime, timedelta]] = field(default_factory=list)
    """From when on the clock was wrong by how much, in order of time."""

    def __post_init__(self) -> None:
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """Return what makes a process obey. Its monotonic clock goes on undisturbed."""
        return {} if self.library is None else {"LD_PRELOAD": str(self.library), "WRONG_CLOCK": str(self.file)}

    def set(self, offset_s: int) -> None:
        """Make the clock wrong by so many seconds, at once."""
        if self.file.exists():
            with self.file.open("r+b") as file:  # never emptied: it is mapped
                file.write(struct.pack("=q", offset_s))
        else:
            self.file.write_bytes(struct.pack("=q", offset_s))
        self.offsets.append((utc_now(), timedelta(seconds=offset_s)))


@dataclass(slots=True)
class Supervisor:
    """Runs `gapless serve`. `ended_by_itself` has the end of each process that nobody killed."""

    daemon: Gapless
    client: httpx.AsyncClient
    ended_by_itself: list[str] = field(default_factory=list)
    _killed: set[int] = field(default_factory=set)
    _spawned: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Supervisor"]:
        """Keep it running until the block ends."""
        keeping = asyncio.create_task(self._keep_running())
        try:
            yield self
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            process = self.daemon.process
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def kill(self) -> None:
        """kill -9; return when the next process has been started."""
        process = self.daemon.process
        if process is None or process.returncode is not None:
            return
        self._killed.add(process.pid)
        self._spawned.clear()
        with suppress(ProcessLookupError):
            process.kill()
        await self._spawned.wait()

    async def is_ready(self) -> bool:
        """Return True if it answers that it is ready."""
        with suppress(httpx.HTTPError):
            return (await self.client.get(f"{self.daemon.private}/readyz")).is_success
        return False

    async def until_ready(self, within_s: float = READY_WITHIN_S) -> bool:
        """Return True once it is ready; False if it is not for `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not await self.is_ready():
                    await asyncio.sleep(0.05)
                return True
        return False

    async def _keep_running(self) -> None:
        while True:
            process = await self.daemon.spawn()
            self._spawned.set()
            code = await process.wait()
            if process.pid not in self._killed:
                self.ended_by_itself.append(f"{utc_now():%H:%M:%S} exit {code}: {self._last_words()}")
                await asyncio.sleep(AGAIN_AFTER_S)

    def _last_words(self) -> str:
        return self.daemon.log.read_text(errors="replace")[-LAST_WORDS:].strip()
