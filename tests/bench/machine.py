"""The machine that the figures are from: its cores, its versions, and who else used it meanwhile."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SERVER_CORE, LOAD_CORE = 0, 1
FOREIGN_MOST = 0.12
"""Cores that others may use during a window; above, it is measured again."""
ATTEMPTS = 3
PACKAGES = (
    "gapless", "litestar", "uvicorn", "uvloop", "httptools", "msgspec", "sqlalchemy", "sqlmodel", "asyncpg", "httpx",
)  # fmt: skip
_TICKS = os.sysconf("SC_CLK_TCK")


def pin(core: int, pid: int = 0) -> None:
    """Keep a process (and what it starts from now on) on one core; on a machine with one core there is no choice."""
    cores = sorted(os.sched_getaffinity(0)) if pid == 0 and core >= (os.cpu_count() or 1) else [core]
    os.sched_setaffinity(pid, cores[-1:])


class Foreign:
    """How many cores others used: the CPU time of all processes but ours.

    Not taken from the machine's own counters: where a clock tick samples who is running, they are far off for
    processes that sleep and wake as often as these.
    """

    def __init__(self) -> None:
        self.cores = 0.0

    @contextlib.contextmanager
    def watch(self, ours: Callable[[], set[int]]) -> Iterator[None]:
        """Measure while the context lasts; `ours` names the processes that are part of the measurement."""
        began, before = time.monotonic(), _used(_processes())
        yield
        foreign = _used(_processes() - ours() - {os.getpid()})
        spent = sum(seconds - before.get(pid, 0.0) for pid, seconds in foreign.items())
        self.cores = max(0.0, spent / (time.monotonic() - began))


def quietest(measure: Callable[[Foreign], T]) -> tuple[T, float]:
    """`measure`, again if others disturbed it; of its results the least disturbed one, never the best one."""
    results = []
    for _ in range(ATTEMPTS):
        foreign = Foreign()
        results.append((measure(foreign), foreign.cores))
        if foreign.cores <= FOREIGN_MOST:
            break
    return min(results, key=lambda result: result[1])


def named(name: str) -> set[int]:
    """The processes of that name."""
    found = set()
    for pid in _processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.add(pid)
    return found


def children() -> set[int]:
    """The processes that this one has started."""
    me, found = str(os.getpid()), set()
    for pid in _processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == me:
                found.add(pid)
    return found


def cpu_seconds(pids: set[int]) -> float:
    """User and system time of these processes so far."""
    return sum(_used(pids).values())


def _processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}


def _used(pids: set[int]) -> dict[int, float]:
    used = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def described() -> dict[str, Any]:
    """Processor, memory, kernel and versions."""
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "wrk": _first_line("wrk", "-v"),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _first_line(*command: str) -> str:
    if not shutil.which(command[0]):
        return "not installed"
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return (ran.stdout or ran.stderr).partition("\n")[0].partition(" [")[0].strip()
