"""Refused webhooks, kept for a while with the reason, and names of events that we turned away. Bounded per source.

The rows of each reason are a share (released rows are one too). When a source exceeds its caps, the oldest
rows of the largest share are deleted, so a flood of one reason displaces only itself.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from sqlalchemy import Connection, case, delete, func, insert, select, update

from gapless.ledger import looks
from gapless.ledger.recorder import Recorder, Webhook
from gapless.ledger.tables import QUARANTINE

UNAVAILABLE, TOO_LARGE, CLOSED = "unavailable", "too_large", "closed"
"""The reasons of rows of webhooks that we turned away: 503 once verified, 413 and 503 before the body was read."""
PARTIAL = frozenset({UNAVAILABLE, TOO_LARGE, CLOSED})
"""Rows with these reasons hold no whole webhook, so they cannot be released. They name events, for `named_in`."""
RELEASED = "released"
"""The name of the share of released rows, whatever their reason."""
EVICTED_AT_ONCE = 64
RANDOM_FROM = 16
"""Characters from which on an id that a vendor draws cannot be guessed. Counters are shorter."""
_WORD = re.compile(rb"[\w.@-]+")
"""An id, as JSON, forms and headers have it between other characters."""
_share = case((QUARANTINE.c.released_us.is_not(None), RELEASED), else_=QUARANTINE.c.reason)
_SIZE = func.length(QUARANTINE.c.body) + func.length(QUARANTINE.c.headers)
_ENTRY = (
    QUARANTINE.c.id, QUARANTINE.c.source_id, QUARANTINE.c.received_us, QUARANTINE.c.reason, QUARANTINE.c.detail,
    _SIZE.label("size"), QUARANTINE.c.released_us,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most rows and bytes of one source."""

    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedWebhook:
    """A refused webhook to keep. `headers` is a JSON list of [name, value] pairs, as they came."""

    source_id: int
    received_us: int
    reason: str
    detail: str
    headers: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEntry:
    """A kept webhook without its content. `size` is in bytes, times are microseconds."""

    id: int
    source_id: int
    received_us: int
    reason: str
    detail: str
    size: int
    released_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The rows and bytes of one reason, or of the released rows."""

    name: str
    rows: int
    size_bytes: int


def add(connection: Connection, refused: Sequence[QuarantinedWebhook], caps: Caps) -> None:
    """Insert the webhooks, and delete old ones of each source that is over its caps.

    Their sources are looked at soon: what we refused may be missing.
    """
    columns = QuarantinedWebhook.__slots__
    connection.execute(insert(QUARANTINE), [{name: getattr(row, name) for name in columns} for row in refused])
    for source_id in sorted({row.source_id for row in refused}):
        while (share := largest_if_over(shares(connection, source_id), caps)) is not None:
            _evict_oldest(connection, source_id, share, caps)
    for verified in (True, False):
        noticed = {row.source_id: row.received_us for row in refused if (row.reason == UNAVAILABLE) is verified}
        looks.want_soon(connection, noticed, looks.REFUSED if verified else looks.DOUBTED)


def shares(connection: Connection, source_id: int) -> list[Share]:
    """Return the shares of the source, by name."""
    query = select(_share.label("name"), func.count(), func.sum(_SIZE))
    query = query.where(QUARANTINE.c.source_id == source_id).group_by(_share).order_by(_share)
    return [Share(name=name, rows=rows, size_bytes=int(size)) for name, rows, size in connection.execute(query)]


def largest_if_over(occupied: Sequence[Share], caps: Caps) -> Share | None:
    """Return the share to delete from: the largest by the cap that is exceeded. None if no cap is."""
    if sum(share.rows for share in occupied) > caps.rows:
        return max(occupied, key=lambda share: share.rows)
    if sum(share.size_bytes for share in occupied) > caps.size_bytes:
        return max(occupied, key=lambda share: share.size_bytes)
    return None


def _evict_oldest(connection: Connection, source_id: int, share: Share, caps: Caps) -> None:
    """Delete the oldest rows of a share, a small part at once, so that no more is lost than necessary."""
    part = max(1, min(EVICTED_AT_ONCE, share.rows // 16, caps.rows // 16))
    oldest = (
        select(QUARANTINE.c.id)
        .where(QUARANTINE.c.source_id == source_id, _share == share.name)
        .order_by(QUARANTINE.c.id)
        .limit(part)
    )
    connection.execute(delete(QUARANTINE).where(QUARANTINE.c.id.in_(oldest)))


def entries(
    connection: Connection, source_id: int | None = None, *, after_id: int = 0, limit: int = 100
) -> list[QuarantineEntry]:
    """Return kept webhooks after `after_id` in order of arrival; of one source, or of all."""
    query = select(*_ENTRY).where(QUARANTINE.c.id > after_id).order_by(QUARANTINE.c.id).limit(limit)
    if source_id is not None:
        query = query.where(QUARANTINE.c.source_id == source_id)
    return [QuarantineEntry(**row) for row in connection.execute(query).mappings()]


def content(connection: Connection, quarantine_id: int) -> tuple[QuarantinedWebhook, int | None] | None:
    """Return a kept webhook with its content and the time of its release; None if there is no such webhook."""
    columns = [QUARANTINE.c[name] for name in QuarantinedWebhook.__slots__]
    query = select(*columns, QUARANTINE.c.released_us).where(QUARANTINE.c.id == quarantine_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    values = dict(row)
    released_us = values.pop("released_us")
    return QuarantinedWebhook(**values), released_us


def release(
    connection: Connection, quarantine_id: int, *, recorder: Recorder, webhook: Webhook, now_us: int
) -> int | None:
    """Record the events of a kept webhook and mark it as released; return how many events were new.

    Returns None and records nothing if it does not exist or was released already.
    """
    where = (QUARANTINE.c.id == quarantine_id, QUARANTINE.c.released_us.is_(None))
    if connection.execute(update(QUARANTINE).where(*where).values(released_us=now_us)).rowcount != 1:
        return None
    return recorder.record_webhooks(connection, [webhook])[0]


class Named(Protocol):
    """An event by what a webhook may name: its key, and its state if it is one."""

    @property
    def key(self) -> str:
        """Its identity."""
        ...

    @property
    def object_key(self) -> str | None:
        """The key of its object; None: it has none."""
        ...

    @property
    def object_version(self) -> int | None:
        """The version of its object, where the list shows states."""
        ...


def names_of(event: Named) -> tuple[str, ...]:
    """Return the names under which a webhook and a list may both show the event: its key, and its state if it is one.

    A list of states knows no keys of webhooks.
    """
    if event.object_key is None or event.object_version is None:
        return (event.key,)
    return (event.key, f"{event.object_key}@{event.object_version}")


def named_in(connection: Connection, source_id: int, events: Collection[Named], since_us: int) -> set[str]:
    """Return the keys of those `events` that a webhook of the source names which we refused at or after `since_us`.

    If the webhook was verified, any name counts. If not: the key of an event that never reached us is known only to the
    vendor, unless it can be guessed: keys that are short or plain numbers are never returned. A key of several parts,
    such as GitHub's, is named if each part of it is.
    """
    keys = {name: event.key for event in events for name in names_of(event)}
    parts = {
        event.key: event.key.encode().split(b":") for event in events if any(map(_is_random, event.key.split(":")))
    }
    query = select(QUARANTINE.c.reason, QUARANTINE.c.headers, QUARANTINE.c.body)
    query = query.where(QUARANTINE.c.source_id == source_id, QUARANTINE.c.received_us >= since_us)
    if not parts:
        query = query.where(QUARANTINE.c.reason == UNAVAILABLE)
    wanted, found = {part for each in parts.values() for part in each}, set[str]()
    for reason, headers, body in connection.execute(query):
        if reason == UNAVAILABLE:
            found |= {keys[name] for name in msgspec.json.decode(body, type=list[str]) if name in keys}
            continue
        named = wanted.intersection((*_WORD.findall(headers.encode()), *_WORD.findall(body)))
        found |= {key for key, each in parts.items() if named.issuperset(each)}
    return found


def _is_random(part: str) -> bool:
    """Return True if nobody can guess it: long, and no number."""
    return len(part) >= RANDOM_FROM and not part.isdigit()
