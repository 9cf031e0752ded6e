"""Attempts: what is kept of each, for people who look for the cause of a failure.

They are bounded in age (`retention.prune_attempts`) and in number for each delivery (`retention.trim_attempts`).
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from gapless.destinations.contract import Answer
from gapless.ledger.tables import ATTEMPT, DESTINATION, EVENT, SOURCE


class _StoredAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The column `answer`: headers, the beginning of the body, and whether that is all of it."""

    headers: dict[str, str] = {}
    body: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDetails:
    """One attempt as people see it. Times are microseconds."""

    id: int
    source: str
    key: str
    destination: str
    at_us: int
    duration_us: int
    outcome: str
    detail: str | None
    answer: Answer | None
    """What the consumer answered, as far as it is kept; None: nothing is known of an answer."""


def encoded(answer: Answer) -> str:
    """Return headers and body of an answer as they are stored."""
    stored = _StoredAnswer(headers=dict(answer.headers), body=answer.body, cut=answer.is_cut)
    return msgspec.json.encode(stored).decode()


def of_event(
    connection: Connection, seq: int, *, destination_id: int | None = None, after_id: int = 0, limit: int = 100
) -> list[AttemptDetails]:
    """Return the attempts to deliver an event, oldest first, after `after_id`."""
    columns = (ATTEMPT.c[name] for name in ("id", "at_us", "duration_us", "outcome", "detail", "status", "answer"))
    names = (SOURCE.c.name.label("source"), EVENT.c.key, DESTINATION.c.name.label("destination"))
    query = (
        select(*columns, *names)
        .join_from(ATTEMPT, EVENT, EVENT.c.seq == ATTEMPT.c.event_seq)
        .join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        .join(DESTINATION, DESTINATION.c.id == ATTEMPT.c.destination_id)
        .where(ATTEMPT.c.event_seq == seq, ATTEMPT.c.id > after_id)
        .order_by(ATTEMPT.c.id)
        .limit(limit)
    )
    if destination_id is not None:
        query = query.where(ATTEMPT.c.destination_id == destination_id)
    return [_details(dict(row)) for row in connection.execute(query).mappings()]


def _details(row: dict[str, Any]) -> AttemptDetails:
    status, stored = row.pop("status"), row.pop("answer")
    answer = None
    if status is not None or stored is not None:
        kept = msgspec.json.decode(stored or "{}", type=_StoredAnswer)
        answer = Answer(status=status, headers=kept.headers, body=kept.body, is_cut=kept.cut)
    return AttemptDetails(**row, answer=answer)
