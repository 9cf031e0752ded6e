"""Refused webhooks, kept for a while with the reason, and names of events that we turned away. Bounded per source.

The rows of each reason are a share (released rows are one too), and in it those of each sender. When a source exceeds
its caps, rows of the largest share of the largest reason are purged, so a flood of one reason or sender displaces only
itself. Those in the middle go first, the largest of them if bytes are short: the oldest quarter shows how it began and
the newest what it is like now. A row is purged when it is too old, too.

A purged row keeps what it claimed, the reason and the time. If it may be genuine and nobody released it, it counts as
expired until a person acknowledges that.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Protocol

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, case, delete, func, insert, select, update

from gapless.ledger import looks, newest, sealed
from gapless.ledger.keyring import ring_of
from gapless.ledger.newest import NewestPage
from gapless.ledger.recorder import Recorder, Webhook
from gapless.ledger.tables import EVENT, MISSING, QUARANTINE, SOURCE
from gapless.sealing import CannotOpen

UNAVAILABLE, TOO_LARGE, CLOSED = "unavailable", "too_large", "closed"
"""The reasons of rows of webhooks that we turned away: 503 once verified, 413 and 503 before the body was read."""
PARTIAL = frozenset({UNAVAILABLE, TOO_LARGE, CLOSED})
"""Rows with these reasons hold no whole webhook, so they cannot be released. They name events, for `named_in`."""
RELEASED = "released"
"""The name of the share of released rows, whatever their reason."""
EVICTED_AT_ONCE = 64
RANDOM_FROM = 16
"""Characters from which on an id that a vendor draws cannot be guessed. Counters are shorter."""
UNSTORABLE = "unstorable"
"""The reason of a webhook that was verified, and whose content the store refused."""
MAY_BE_MENDED = frozenset({
    "signature", "stale", "bad_header", "duplicate_header", "malformed", "other_account", "internal", "evidence",
})  # fmt: skip
"""Reasons that another secret, a true clock or a later release may remove, so that the webhook can be released."""
TRACES = 1000
"""Most purged rows that are kept per source, the newest."""
_WORD = re.compile(rb"[\w.@-]+")
"""An id, as JSON, forms and headers have it between other characters."""
_share = case((QUARANTINE.c.released_us.is_not(None), RELEASED), else_=QUARANTINE.c.reason)
_SIZE = func.length(QUARANTINE.c.body) + func.length(QUARANTINE.c.headers)
_ENTRY = (
    QUARANTINE.c.id, QUARANTINE.c.source_id, QUARANTINE.c.received_us, QUARANTINE.c.reason, QUARANTINE.c.detail,
    _SIZE.label("size"), QUARANTINE.c.released_us, QUARANTINE.c.sender, QUARANTINE.c.claims, QUARANTINE.c.purged_us,
)  # fmt: skip
_IS_WHOLE = QUARANTINE.c.purged_us.is_(None)


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
    sender: str = ""
    """The address that it came from; "": unknown."""
    claims: str = "[]"
    """JSON list of the keys of the events that it claims to carry."""


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
    sender: str
    claims: tuple[str, ...]
    """The keys of the events that it claims to carry."""
    purged_us: int | None
    """The time at which its content was deleted; None: it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The rows and bytes of one sender with one reason, or of its released rows."""

    name: str
    rows: int
    size_bytes: int
    sender: str = ""


def add(connection: Connection, refused: Sequence[QuarantinedWebhook], caps: Caps) -> None:
    """Insert the webhooks, and purge some of each source that is over its caps.

    Their sources are looked at soon: what we refused may be missing.
    """
    ring, erased = ring_of(connection), _erased(connection, refused)
    rows = [
        {"purged_us": None, **{name: getattr(row, name) for name in QuarantinedWebhook.__slots__}}
        | (sealed.seal_refused(ring, row) if id(row) not in erased else _emptied(row.received_us))
        for row in refused
    ]
    connection.execute(insert(QUARANTINE), rows)
    for source_id in sorted({row.source_id for row in refused}):
        now_us = max(row.received_us for row in refused if row.source_id == source_id)
        while (share := largest_if_over(shares(connection, source_id), caps)) is not None:
            purge(connection, source_id, _victims(connection, source_id, share, caps), now_us)
    for verified in (True, False):
        noticed = {row.source_id: row.received_us for row in refused if (row.reason == UNAVAILABLE) is verified}
        looks.want_soon(connection, noticed, looks.REFUSED if verified else looks.DOUBTED)


def _emptied(now_us: int) -> dict[str, object]:
    """Return the columns of a row whose content is gone."""
    return {"purged_us": now_us, "headers": "[]", "body": b"", "sealed_by": None}


def _erased(connection: Connection, refused: Sequence[QuarantinedWebhook]) -> set[int]:
    """Return the identities of those that claim to carry an event whose content a person had erased."""
    found = set[int]()
    for row in refused:
        keys = msgspec.json.decode(row.claims, type=list[str])
        query = select(EVENT.c.seq).where(EVENT.c.source_id == row.source_id, EVENT.c.key.in_(keys))
        if keys and connection.execute(query.where(EVENT.c.erased_us.is_not(None)).limit(1)).first() is not None:
            found.add(id(row))
    return found


def shares(connection: Connection, source_id: int) -> list[Share]:
    """Return the shares of the source, by name and sender. Purged rows have none."""
    query = select(_share.label("name"), QUARANTINE.c.sender, func.count(), func.sum(_SIZE))
    query = query.where(QUARANTINE.c.source_id == source_id, _IS_WHOLE).group_by(_share, QUARANTINE.c.sender)
    return [
        Share(name=name, sender=sender, rows=rows, size_bytes=int(size))
        for name, sender, rows, size in connection.execute(query.order_by(_share, QUARANTINE.c.sender))
    ]


def largest_if_over(occupied: Sequence[Share], caps: Caps) -> Share | None:
    """Return the share to delete from: of the reason that is largest by the exceeded cap, that of the largest sender.

    None if no cap is exceeded.
    """
    for measure, cap in (("rows", caps.rows), ("size_bytes", caps.size_bytes)):
        of_reasons: Counter[str] = Counter()
        for share in occupied:
            of_reasons[share.name] += getattr(share, measure)
        if of_reasons.total() > cap:
            largest = max(of_reasons, key=of_reasons.__getitem__)
            return max((share for share in occupied if share.name == largest), key=attrgetter(measure))
    return None


def _victims(connection: Connection, source_id: int, share: Share, caps: Caps) -> list[int]:
    """Return the ids of rows in the middle of a share, a small part at once, so that no more is lost than necessary."""
    part = max(1, min(EVICTED_AT_ONCE, share.rows // 16, caps.rows // 16))
    quarter = share.rows // 4
    middle = (
        select(QUARANTINE.c.id, _SIZE.label("size"))
        .where(QUARANTINE.c.source_id == source_id, _IS_WHOLE, _share == share.name)
        .where(QUARANTINE.c.sender == share.sender)
        .order_by(QUARANTINE.c.id)
        .offset(quarter)
        .limit(max(1, share.rows - 2 * quarter))
        .subquery()
    )
    query = select(middle.c.id).order_by(middle.c.size.desc(), middle.c.id).limit(part)
    return list(connection.execute(query).scalars())


def purge(connection: Connection, source_id: int, ids: Collection[int], now_us: int) -> None:
    """Delete the content of rows of one source; what they claim stays, of the newest `TRACES`.

    What was released, or was no whole webhook, is deleted. What may be genuine counts as expired.
    """
    columns = (QUARANTINE.c.id, QUARANTINE.c.reason, QUARANTINE.c.claims, QUARANTINE.c.received_us)
    chosen = (QUARANTINE.c.id.in_(ids), QUARANTINE.c.source_id == source_id, _IS_WHOLE)
    whole = (*chosen, QUARANTINE.c.released_us.is_(None), QUARANTINE.c.reason.not_in(PARTIAL))
    rows = connection.execute(select(*columns).where(*whole)).all()
    expired = sum(_may_be_genuine(connection, source_id, row) for row in rows)
    emptied = update(QUARANTINE).where(QUARANTINE.c.id.in_([row.id for row in rows]))
    connection.execute(emptied.values(**_emptied(now_us)))
    connection.execute(delete(QUARANTINE).where(*chosen))
    if expired:
        since = func.coalesce(SOURCE.c.quarantine_expired_us, now_us)
        count = SOURCE.c.quarantine_expired + expired
        counted = update(SOURCE).where(SOURCE.c.id == source_id)
        connection.execute(counted.values(quarantine_expired=count, quarantine_expired_us=since))
    _forget_traces(connection, source_id)


def _may_be_genuine(connection: Connection, source_id: int, row: Row[Any, Any, Any, Any]) -> bool:
    """Return True if the webhook may have been the vendor's, and its events are not in the ledger.

    One that was not verified may be if a list has shown an event that it claims to carry, or if no webhook was verified
    since it came: the secret may be another one.
    """
    if row.reason == UNSTORABLE:
        return True
    keys = msgspec.json.decode(row.claims, type=list[str])
    if row.reason not in MAY_BE_MENDED or not keys or _has(connection, EVENT, source_id, keys) == len(keys):
        return False
    if _has(connection, MISSING, source_id, keys):
        return True
    heard_us = connection.execute(select(SOURCE.c.last_webhook_us).where(SOURCE.c.id == source_id)).scalar()
    return heard_us is None or heard_us < row.received_us


def _has(connection: Connection, table: Table, source_id: int, keys: Collection[str]) -> int:
    query = select(func.count()).where(table.c.source_id == source_id, table.c.key.in_(keys))
    return connection.execute(query).scalar_one()


def _forget_traces(connection: Connection, source_id: int) -> None:
    purged = (QUARANTINE.c.source_id == source_id, QUARANTINE.c.purged_us.is_not(None))
    newest = select(QUARANTINE.c.id).where(*purged).order_by(QUARANTINE.c.id.desc()).offset(TRACES).limit(1)
    last = connection.execute(newest).scalar()
    if last is not None:
        connection.execute(delete(QUARANTINE).where(*purged, QUARANTINE.c.id <= last))


def acknowledge_expired(connection: Connection, source_id: int) -> int:
    """Note that a person knows of the webhooks that were purged unjudged; return how many there were."""
    mine = SOURCE.c.id == source_id
    count = connection.execute(select(SOURCE.c.quarantine_expired).where(mine)).scalar_one()
    if count:
        connection.execute(update(SOURCE).where(mine).values(quarantine_expired=0, quarantine_expired_us=None))
    return int(count)


def entries(
    connection: Connection, source_id: int | None = None, *, after_id: int = 0, limit: int = 100
) -> list[QuarantineEntry]:
    """Return kept webhooks after `after_id` in order of arrival; of one source, or of all."""
    query = select(*_ENTRY).where(QUARANTINE.c.id > after_id).order_by(QUARANTINE.c.id).limit(limit)
    if source_id is not None:
        query = query.where(QUARANTINE.c.source_id == source_id)
    return [_entry(row) for row in connection.execute(query).mappings()]


def page(
    connection: Connection,
    *,
    source_ids: Collection[int] | None = None,
    reason: str | None = None,
    after: tuple[int, ...] | None = None,
    limit: int,
) -> NewestPage[QuarantineEntry]:
    """Return kept webhooks, the newest first: of these sources, refused for that reason."""
    where: list[ColumnElement[bool]] = []
    if source_ids is not None:
        where.append(QUARANTINE.c.source_id.in_(source_ids))
    if reason is not None:
        where.append(QUARANTINE.c.reason == reason)
    found = newest.ids(connection, QUARANTINE.c.id, where, after=after, limit=limit)
    rows = newest.rows_of(connection, select(*_ENTRY), QUARANTINE.c.id, found.rows)
    return NewestPage(rows=[_entry(row) for row in rows], after=found.after, is_full=found.is_full)


def entry(connection: Connection, quarantine_id: int) -> QuarantineEntry | None:
    """Return a kept webhook without its content; None: there is none."""
    row = connection.execute(select(*_ENTRY).where(QUARANTINE.c.id == quarantine_id)).mappings().first()
    return None if row is None else _entry(row)


def _entry(row: Any) -> QuarantineEntry:
    return QuarantineEntry(**{**row, "claims": tuple(msgspec.json.decode(row["claims"], type=list[str]))})


def content(connection: Connection, quarantine_id: int) -> tuple[QuarantinedWebhook, int | None, int | None] | None:
    """Return a kept webhook with its content, and the times of its release and its purge; None if there is none.

    Raises `CannotOpen`.
    """
    columns = [QUARANTINE.c[name] for name in (*QuarantinedWebhook.__slots__, "sealed_by")]
    times = QUARANTINE.c.released_us, QUARANTINE.c.purged_us
    query = select(*columns, *times).where(QUARANTINE.c.id == quarantine_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    values = dict(row)
    released_us, purged_us, sealed_by = (values.pop(name) for name in ("released_us", "purged_us", "sealed_by"))
    stored = QuarantinedWebhook(**values)
    body, headers = sealed.open_refused(ring_of(connection), stored, sealed_by)
    return replace(stored, body=body, headers=headers), released_us, purged_us


def release(
    connection: Connection, quarantine_id: int, *, recorder: Recorder, webhook: Webhook, now_us: int
) -> int | None:
    """Record the events of a kept webhook and mark it as released; return how many events were new.

    Returns None and records nothing if it does not exist or was released already.
    """
    where = (QUARANTINE.c.id == quarantine_id, QUARANTINE.c.released_us.is_(None), _IS_WHOLE)
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
    names = ("source_id", "received_us", "reason", "headers", "body", "claims", "purged_us", "sealed_by")
    columns, ring = (QUARANTINE.c[name] for name in names), ring_of(connection)
    query = select(*columns)
    query = query.where(QUARANTINE.c.source_id == source_id, QUARANTINE.c.received_us >= since_us)
    if not parts:
        query = query.where(QUARANTINE.c.reason == UNAVAILABLE)
    wanted, found = {part for each in parts.values() for part in each}, set[str]()
    for row in connection.execute(query):
        if row.purged_us is not None:
            found |= parts.keys() & set(msgspec.json.decode(row.claims, type=list[str]))
            continue
        try:
            body, headers = sealed.open_refused(ring, row, row.sealed_by)
        except CannotOpen:
            continue  # no evidence
        if row.reason == UNAVAILABLE:
            found |= {keys[name] for name in msgspec.json.decode(body, type=list[str]) if name in keys}
            continue
        words = (word[0] for text in (headers.encode(), body) for word in _WORD.finditer(text))
        named = wanted.intersection(words)
        found |= {key for key, each in parts.items() if named.issuperset(each)}
    return found


def _is_random(part: str) -> bool:
    """Return True if nobody can guess it: long, and no number."""
    return len(part) >= RANDOM_FROM and not part.isdigit()
