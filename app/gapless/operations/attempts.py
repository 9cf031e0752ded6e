"""Attempts as people see them: commands and the API show the same."""

from collections.abc import Sequence

from gapless import masking
from gapless.domain import from_us
from gapless.ledger import Connection, attempts, destinations, events
from gapless.ledger.attempts import AttemptDetails
from gapless.ledger.events import Event
from gapless.operations.context import OperationRefused
from gapless.sealing import CannotOpen


def of_key(
    connection: Connection,
    key: str,
    source: str | None = None,
    *,
    destination: str | None = None,
    after_id: int = 0,
    limit: int = 100,
) -> list[tuple[Event, bytes | CannotOpen | None, list[AttemptDetails]]]:
    """Return each event of that key with its payload and its attempts, oldest first, after `after_id`.

    A payload that no key here opens is the error that says so. Several sources may have one key. Raises
    `OperationRefused` if the ledger does not know the destination.
    """
    to = None if destination is None else destinations.destination(connection, destination)
    if destination is not None and to is None:
        raise OperationRefused(f"destination {destination!r} is not known; `gapless status` shows those that are")
    found = []
    for row in events.by_key(connection, key, source):
        tried = attempts.of_event(
            connection, row.seq, destination_id=None if to is None else to.id, after_id=after_id, limit=limit
        )
        found.append((row, _payload(connection, row.seq), tried))
    return found


def _payload(connection: Connection, seq: int) -> bytes | CannotOpen | None:
    try:
        stored = events.payload(connection, seq)
    except CannotOpen as error:
        return error
    return None if stored is None else stored[0]


def as_values(row: AttemptDetails, payload: bytes | CannotOpen | None, mask: Sequence[str]) -> dict[str, object]:
    """Return an attempt for JSON. It was masked when it was stored, and is masked again, as a mask may be newer."""
    answer = row.answer
    return {
        "id": row.id,
        "source": row.source,
        "key": row.key,
        "destination": row.destination,
        "at": from_us(row.at_us),
        "duration_s": row.duration_us / 1_000_000,
        "outcome": row.outcome,
        "detail": row.detail,
        "status": None if answer is None else answer.status,
        "answer": None
        if answer is None
        else {
            "headers": {name: _shown(value, payload, mask) for name, value in answer.headers.items()},
            "body": _shown(answer.body, payload, mask, is_cut=answer.is_cut),
            "is_cut": answer.is_cut,
        },
    }


def _shown(text: str, payload: bytes | CannotOpen | None, mask: Sequence[str], *, is_cut: bool = False) -> str:
    return text if not isinstance(payload, bytes) else masking.scrubbed(text, payload, mask, is_cut=is_cut)
