"""Deliveries that a person sets going: events sent again, dead letters requeued, held ones let go."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from gapless.console.desk import Desk, OperationRefused
from gapless.console.requests import ReleaseHeld, Replay, Requeue
from gapless.domain import from_us, to_us
from gapless.ledger import Connection, dead_letters, selection
from gapless.ledger.dead_letters import BATCH
from gapless.ledger.selection import Chosen, Destination, Extent

LetGo = Callable[..., int]
"""`dead_letters.requeue` or `dead_letters.release`."""
KEYS_SHOWN = 20


async def replay(desk: Desk, asked: Replay) -> dict[str, object]:
    """Owe recorded events to the destination again; those without a payload cannot be sent and are left out."""
    destination = await _destination(desk, asked.destination)
    if destination.state != "active":
        raise OperationRefused(f"destination {destination.name!r} is {destination.state}; configure it again first")
    if asked.keys is not None and (asked.since or asked.until) is not None:
        raise OperationRefused("event.replay takes keys, or since and until; it got both")
    if asked.keys is not None:
        return await _replay_keys(desk, asked, asked.keys, destination)
    if asked.since is not None:
        return await _replay_range(desk, asked, asked.since, destination)
    raise OperationRefused("event.replay needs keys or since (and until); it got neither")


async def _replay_keys(desk: Desk, asked: Replay, keys: Sequence[str], destination: Destination) -> dict[str, object]:
    seqs = await _seqs(desk, keys, asked.source)
    if asked.dry_run:
        return {"count": len(seqs)}
    sent = 0
    for at in range(0, len(seqs), BATCH):
        sent += await _send(desk, destination, seqs[at : at + BATCH])
    return {"replayed": sent, "without_payload": len(seqs) - sent}


async def _replay_range(desk: Desk, asked: Replay, since: datetime, destination: Destination) -> dict[str, object]:
    until = desk.clock() if asked.until is None else asked.until
    if asked.source is not None:
        desk.source(asked.source)
    chosen = Chosen(source=asked.source, start_us=to_us(since), end_us=to_us(until))
    if asked.dry_run:
        return _extent(await desk.read(partial(selection.extent, chosen=chosen)))
    sent = meant = after = 0
    while seqs := await desk.read(partial(selection.seqs_in, chosen=chosen, after_seq=after, limit=BATCH)):
        sent += await _send(desk, destination, seqs)
        meant, after = meant + len(seqs), seqs[-1]
    return {"replayed": sent, "without_payload": meant - sent}


def _extent(extent: Extent) -> dict[str, object]:
    first, last = (None if us is None else from_us(us) for us in (extent.first_us, extent.last_us))
    return {"count": extent.count, "first": first, "last": last}


async def _send(desk: Desk, destination: Destination, seqs: Sequence[int]) -> int:
    again = partial(dead_letters.replay, destination_id=destination.id, seqs=seqs, now_us=desk.now_us)
    sent = await desk.write(Replay.operation, destination.name, again)
    desk.wake()
    return sent


async def requeue(desk: Desk, asked: Requeue) -> dict[str, object]:
    """Give dead letters a fresh budget of attempts."""
    return {"requeued": await _let_go(desk, asked, dead_letters.requeue)}


async def release_held(desk: Desk, asked: ReleaseHeld) -> dict[str, object]:
    """Send what was held back."""
    return {"released": await _let_go(desk, asked, dead_letters.release)}


async def _let_go(desk: Desk, asked: Requeue | ReleaseHeld, let_go: LetGo) -> int:
    """Batch after batch, until none is left that is meant. Returns how many."""
    destination = None if asked.destination is None else await _destination(desk, asked.destination)
    seqs = None if asked.keys is None else await _seqs(desk, asked.keys, None)
    count = 0
    while went := await desk.write(
        asked.operation, asked.destination or "*", _batch(desk, asked, let_go, destination, seqs)
    ):
        count += went
    desk.wake()
    return count


def _batch(
    desk: Desk,
    asked: Requeue | ReleaseHeld,
    let_go: LetGo,
    destination: Destination | None,
    seqs: Sequence[int] | None,
) -> Callable[[Connection], int]:
    destination_id = None if destination is None else destination.id
    return partial(let_go, now_us=desk.now_us, destination_id=destination_id, reason=asked.reason, seqs=seqs)


async def _destination(desk: Desk, name: str) -> Destination:
    found = await desk.read(partial(selection.destination, name=name))
    if found is None:
        raise OperationRefused(f"destination {name!r} is not known; `gapless status` shows those that are")
    return found


async def _seqs(desk: Desk, keys: Sequence[str], source: str | None) -> list[int]:
    """The events of those keys. Raises `OperationRefused` if one of them is not in the ledger."""
    found = await desk.read(partial(selection.seqs_of, keys=keys, source=source))
    unknown = [key for key in keys if key not in found]
    if unknown:
        shown = ", ".join(map(repr, unknown[:KEYS_SHOWN]))
        raise OperationRefused(f"{len(unknown)} keys are not in the ledger: {shown}; nothing was sent")
    return sorted({seq for seqs in found.values() for seq in seqs})
