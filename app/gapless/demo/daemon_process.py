"""The daemon as a child process: started, killed without warning, started again, and never left behind."""

import asyncio
import atexit
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
import msgspec

from gapless.errors import Unavailable


class ListedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The time up to which the ledger agrees with the provider's list; None: not known yet."""

    complete_up_to: datetime | None
    last_complete_pass: datetime | None


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One source. `events` counts by how they were first recorded."""

    name: str
    events: dict[str, int]
    duplicates: int
    list: ListedStatus


class DestinationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One destination. `backlog` counts deliveries that are not done, by state."""

    name: str
    backlog: dict[str, int]


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the daemon's `/api/status` that the demo reads. The demo has one source and one destination."""

    at: datetime
    sources: tuple[SourceStatus, ...]
    destinations: tuple[DestinationStatus, ...]

    @property
    def source(self) -> SourceStatus:
        """The one source."""
        return self.sources[0]

    @property
    def pending(self) -> int:
        """The number of deliveries that are still attempted."""
        return sum(each.backlog.get("pending", 0) for each in self.destinations)


def read_status(body: bytes) -> DaemonStatus:
    """Return the status in a response of `/api/status`. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(body, type=DaemonStatus)


READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
READY_POLL_S = 0.05
LOG_LINES = 15


class DaemonEnded(Unavailable):
    """The daemon did not start, or ended by itself; the message has the end of its log."""


@dataclass(slots=True, kw_only=True)
class DaemonProcess:
    """A process that runs `command` with exactly `environ`, answers at `address` and writes its output to `log`."""

    command: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    address: str
    log: Path
    client: httpx.AsyncClient
    _process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process and return when it is ready. Raises `DaemonEnded`."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches only us, and the whole process group can be ended.
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                env=dict(self.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self._signal, signal.SIGKILL)
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while not await self._is_ready():
                    self.check()
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise DaemonEnded(self._describe_failure(f"was not ready within {READY_WITHIN_S:.0f} s")) from None

    def check(self) -> None:
        """Raise `DaemonEnded` if the process has ended."""
        if self._process is not None and self._process.returncode is not None:
            raise DaemonEnded(self._describe_failure(f"ended by itself with exit code {self._process.returncode}"))

    async def kill(self) -> None:
        """End the process with SIGKILL, as a crash would."""
        self._signal(signal.SIGKILL)
        await self._wait_for_end()

    async def stop(self) -> None:
        """End the process with SIGTERM, as an operator would; with SIGKILL if it takes longer than `STOP_WITHIN_S`."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._wait_for_end()
        except TimeoutError:
            await self.kill()

    async def status(self) -> DaemonStatus | None:
        """Return the daemon's status; None if it does not answer."""
        try:
            response = await self.client.get(f"{self.address}/api/status")
            return read_status(response.content) if response.is_success else None
        except (httpx.HTTPError, msgspec.DecodeError):
            return None

    async def _is_ready(self) -> bool:
        try:
            return (await self.client.get(f"{self.address}/readyz")).is_success
        except httpx.HTTPError:
            return False

    async def _wait_for_end(self) -> None:
        """Wait until the process has ended, and forget it: we wanted it to end."""
        process = self._process
        if process is not None:
            await process.wait()
            self._process = None
            atexit.unregister(self._signal)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _describe_failure(self, what: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n  ".join([f"the daemon {what}; the end of its log:", *lines])
