"""What is left of files after a power failure: what was synced, and of the rest whatever the disk happened to write.

`disk_log.c` records the writes of a process. `Disk` goes through the record and shows the files as they may be at any
point of it.
"""

import random
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

HEAD = struct.Struct("<IIQQ")
WRITE, TRUNCATE, SYNC_BEGINS, SYNC_ENDS, UNLINK = range(1, 6)
SECTOR = 512
"""Bytes that a disk writes whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One recorded call. `end` is the size of the record after it."""

    kind: int
    path: str
    offset: int
    data: bytes
    size: int
    end: int


def steps(log: bytes) -> Iterator[Step]:
    """Return the recorded calls in order; one that was cut short at the end is left out."""
    at = 0
    while at + HEAD.size <= len(log):
        kind, path_size, offset, size = HEAD.unpack_from(log, at)
        data_size = size if kind == WRITE else 0
        path_at, data_at = at + HEAD.size, at + HEAD.size + path_size
        at = data_at + data_size
        if at > len(log):
            return
        yield Step(
            kind=kind, path=log[path_at:data_at].decode(), offset=offset, data=log[data_at:at], size=size, end=at
        )


@dataclass(slots=True)
class Disk:
    """The files as far as they are synced, and the calls that are not. With `syncs` false, nothing is ever synced."""

    syncs: bool = True
    synced: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    begun: dict[str, int] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        """Go on to the next call."""
        if step.kind in (WRITE, TRUNCATE):
            self.pending[step.path].append(step)
        elif step.kind == SYNC_BEGINS:
            self.begun[step.path] = len(self.pending[step.path])
        elif step.kind == SYNC_ENDS and self.syncs:
            done = self.begun.get(step.path, 0)
            waiting = self.pending[step.path]
            for each in waiting[:done]:
                apply(self.synced.setdefault(step.path, bytearray()), each)
            self.pending[step.path] = waiting[done:]
            self.begun[step.path] = 0
        elif step.kind == UNLINK:
            self.synced.pop(step.path, None)
            self.pending.pop(step.path, None)

    def after_power_loss(self, chance: random.Random) -> dict[str, bytes]:
        """Return the files: of the calls that were not synced, some happened, in whole or in part."""
        share = chance.choice((0.0, 0.5, 1.0))
        files = {path: bytearray(content) for path, content in self.synced.items()}
        for path, waiting in self.pending.items():
            for each in waiting:
                if chance.random() < share:
                    apply(files.setdefault(path, bytearray()), torn(each, chance))
        return {path: bytes(content) for path, content in files.items()}


def apply(content: bytearray, step: Step) -> None:
    """Apply a write or a change of size."""
    if step.kind == TRUNCATE:
        del content[step.size :]
        content.extend(bytes(step.size - len(content)))
        return
    content.extend(bytes(max(0, step.offset - len(content))))
    content[step.offset : step.offset + len(step.data)] = step.data


def torn(step: Step, chance: random.Random) -> Step:
    """Return the write, or now and then only its first sectors."""
    if step.kind != WRITE or chance.random() < 0.7:
        return step
    kept = chance.randrange(len(step.data) // SECTOR + 1) * SECTOR
    return Step(kind=WRITE, path=step.path, offset=step.offset, data=step.data[:kept], size=kept, end=step.end)
