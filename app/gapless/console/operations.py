"""The operations behind the commands that write. The daemon's private API and the command line both call `perform`.

Each one writes what it did into the audit log, in the same transaction. Long ones commit in batches,
so that no webhook waits behind them, with a row for each batch.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from gapless.console import acknowledge, passing, sending
from gapless.console.desk import Desk, OperationRefused
from gapless.console.requests import (
    Acknowledge,
    Import,
    Pass,
    PassStatus,
    ReleaseHeld,
    ReleaseQuarantined,
    Rename,
    Replay,
    Request,
    Requeue,
    Seen,
)
from gapless.domain import Source, Via
from gapless.ledger import Connection, quarantine, sources
from gapless.ledger.recorder import Recorder, Sighting
from gapless_reconcilers.kit.contract import RemoteEvent

R = TypeVar("R", bound=Request)
Operation = Callable[[Desk, Mapping[str, object]], Awaitable[dict[str, object]]]
IMPORT_BATCH = 500
"""Events recorded in one transaction: about a page."""
REFUSALS_SHOWN = 20


async def perform(desk: Desk, name: str, args: Mapping[str, object]) -> dict[str, object]:
    """Do the operation `name`. Values are what msgspec writes as JSON. Raises `OperationRefused` and `StoreError`."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise OperationRefused(f"operation {name!r} does not exist; there are {', '.join(sorted(OPERATIONS))}")
    return await operation(desk, args)


def _operation(takes: type[R], does: Callable[[Desk, R], Awaitable[dict[str, object]]]) -> tuple[str, Operation]:
    async def checked(desk: Desk, args: Mapping[str, object]) -> dict[str, object]:
        try:
            asked = msgspec.convert(dict(args), takes)
        except msgspec.ValidationError as error:
            wanted = ", ".join(takes.__struct_fields__)
            raise OperationRefused(f"{takes.operation}: {error}; it takes {wanted}") from error
        return await does(desk, asked)

    return takes.operation, checked


async def rename(desk: Desk, asked: Rename) -> dict[str, object]:
    """Give a source's row another name; all that was recorded stays with it."""
    if asked.old == asked.new:
        raise OperationRefused(f"source {asked.old!r} has that name already")
    await desk.write(asked.operation, asked.old, partial(_rename, asked=asked))
    advice = "write the new name into the configuration and restart; until then no pass is made of this source"
    return {"old": asked.old, "new": asked.new, "next": advice}


def _rename(connection: Connection, asked: Rename) -> dict[str, str]:
    if sources.source_named(connection, asked.old) is None:
        raise OperationRefused(f"source {asked.old!r} is not in the ledger; `gapless source list` shows those that are")
    if not sources.rename(connection, asked.old, asked.new):
        raise OperationRefused(f"source {asked.new!r} exists already; choose another name")
    return {"new": asked.new}


async def import_seen(desk: Desk, asked: Import) -> dict[str, object]:
    """Record events as seen. Doing it again changes nothing."""
    source = desk.source(asked.source)
    stream_id = await desk.writer.submit(partial(sources.ensure_stream, source_id=source.id, name=""))
    seen = [_sighting(desk, source, stream_id, event, place) for place, event in enumerate(asked.events)]
    new = 0
    for at in range(0, len(seen), IMPORT_BATCH):
        batch = partial(_import, recorder=desk.writer.recorder, seen=seen[at : at + IMPORT_BATCH])
        new += await desk.write(asked.operation, source.name, batch)
    return {"new": new, "known": len(seen) - new}


def _sighting(desk: Desk, source: Source, stream_id: int, event: Seen, place: int) -> Sighting:
    """An imported event. One without a time counts as of now, and is never expected."""
    try:
        remote = RemoteEvent(
            key=event.key,
            type=event.type,
            occurred_at=event.occurred_at or desk.clock(),
            payload=b"",
            listable=event.occurred_at is not None,
        )
    except ValueError as error:
        raise OperationRefused(f"events[{place}]: {error}; nothing was recorded") from error
    return Sighting(source=source, stream_id=stream_id, event=remote, via=Via.IMPORT, seen_us=desk.now_us)


def _import(connection: Connection, recorder: Recorder, seen: Sequence[Sighting]) -> int:
    return len(recorder.store(connection, seen))


async def release_quarantined(desk: Desk, asked: ReleaseQuarantined) -> dict[str, object]:
    """Read refused webhooks again; what still does not verify stays, and is told with its reason."""
    if (asked.id is None) == (asked.source is None):
        raise OperationRefused("quarantine.release needs either id or source; it got both or neither")
    ids = [asked.id] if asked.id is not None else await _quarantined(desk, desk.source(asked.source or ""))
    released, new, refused = 0, 0, list[dict[str, object]]()
    for quarantine_id in ids:
        outcome = await desk.release_one(quarantine_id)
        if outcome.new is None:
            refused.append({"id": quarantine_id, "reason": outcome.reason, "detail": outcome.detail})
        else:
            released, new = released + 1, new + outcome.new
    result: dict[str, object] = {"released": released, "new": new, "refused": len(refused)}
    if released:
        await desk.write(asked.operation, asked.source or str(asked.id), partial(_tell, result=result))
    return result | {"first_refused": refused[:REFUSALS_SHOWN]}


def _tell(_connection: Connection, result: dict[str, object]) -> dict[str, object]:
    return result


async def _quarantined(desk: Desk, source: Source) -> list[int]:
    """The ids of all webhooks of the source that were not released yet, oldest first."""
    ids, after = list[int](), 0
    while found := await desk.read(partial(quarantine.entries, source_id=source.id, after_id=after, limit=1000)):
        ids += [entry.id for entry in found if entry.released_us is None]
        after = found[-1].id
    return ids


OPERATIONS: Final[Mapping[str, Operation]] = dict(
    (
        _operation(Rename, rename),
        _operation(Acknowledge, acknowledge.acknowledge),
        _operation(Pass, passing.demand),
        _operation(PassStatus, passing.status),
        _operation(Import, import_seen),
        _operation(Replay, sending.replay),
        _operation(Requeue, sending.requeue),
        _operation(ReleaseHeld, sending.release_held),
        _operation(ReleaseQuarantined, release_quarantined),
    )
)
"""Every operation, by name."""

__all__ = ["OPERATIONS", "Desk", "OperationRefused", "perform"]
