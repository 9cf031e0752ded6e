"""Time that survives a machine whose clock jumps: the clock of a process, and the rules for stored times. A leaf.

Three times are kept apart:

- the **machine's clock** (`machine_clock`), which signatures of webhooks are judged by;
- the **ledger's clock**, by which every time is stored: PostgreSQL's, or on SQLite the machine's. A `ProcessClock`
  shows it without asking: it runs with `elapsed_us` and is set only by `set`;
- **elapsed time** (`elapsed_us`), by which lengths of time within the process are measured. It never jumps, and it goes
  on while the machine sleeps.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

_ELAPSED: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
TOLERANCE: Final = timedelta(seconds=2)
"""Clocks that differ by no more than this agree: a larger step of a clock is a jump."""
TOLERANCE_US: Final = TOLERANCE // _MICROSECOND


def _now() -> datetime:
    return datetime.now(UTC)


class ProcessClock:
    """The ledger's clock as this process knows it: the time that was set last, and what has elapsed since then."""

    __slots__ = ("_jumped_at_us", "_set_at_us", "_time", "machine")

    def __init__(self, machine: Callable[[], datetime] = _now) -> None:
        self.machine = machine
        self._jumped_at_us: int | None = None
        self.set(machine())

    def __call__(self) -> datetime:
        """Return the time."""
        return self._time + timedelta(microseconds=self.elapsed_us() - self._set_at_us)

    def set(self, now: datetime) -> None:
        """Show `now`, and go on from there."""
        self._time, self._set_at_us = now, self.elapsed_us()

    def note_jump(self) -> None:
        """Note that the ledger's clock has just jumped."""
        self._jumped_at_us = self.elapsed_us()

    def is_settled(self, after: timedelta) -> bool:
        """Return True if the ledger's clock has not jumped for that time."""
        jumped_at_us = self._jumped_at_us
        return jumped_at_us is None or self.elapsed_us() - jumped_at_us > after // _MICROSECOND

    def elapsed_us(self) -> int:
        """Return the microseconds since some moment in the past. They never jump."""
        return time.clock_gettime_ns(_ELAPSED) // 1000


def elapsed_us(clock: Callable[[], datetime]) -> int:
    """Return the microseconds since some moment in the past: as they elapse, or by `clock` if a test moves that."""
    return clock.elapsed_us() if isinstance(clock, ProcessClock) else (clock() - _EPOCH) // _MICROSECOND


def machine_clock(clock: Callable[[], datetime]) -> Callable[[], datetime]:
    """Return the clock of the machine that `clock` belongs to."""
    return clock.machine if isinstance(clock, ProcessClock) else clock


def is_due(due_us: int, wait_us: int, now_us: int) -> bool:
    """Return True if a wait of `wait_us` that ends at `due_us` is over, or cannot be right.

    A stored time that lies further ahead than its own wait was written by a clock that was ahead: it is due now.
    """
    return due_us <= now_us or is_ahead(due_us - wait_us, now_us)


def is_ahead(began_us: int, now_us: int) -> bool:
    """Return True if something that has begun lies in the future, so that a clock was wrong when it was stored."""
    return began_us > now_us + TOLERANCE_US
