"""The audit log: who did what, and when. Each row is written in the transaction of its action.

The rows form a chain: the digest of a row depends on its content, its number and the digest of the row before, under a
key that is not in the ledger. So whoever can write to the database, and lacks the key, cannot change, remove or insert
a row unseen (`ledger.audit_proof`). The row `audit_head` has the end of the chain, with a seal by the same key; it is
updated first, so that writers wait for each other and the chain has no fork.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from gapless.domain import DAY_US
from gapless.ledger import newest
from gapless.ledger.engine import StoreError
from gapless.ledger.newest import NewestPage
from gapless.ledger.retention import Pruned
from gapless.ledger.tables import AUDIT_HEAD, AUDIT_LOG
from gapless_reconcilers.kit.contract import Secret

DAEMON: Final = "daemon"
"""The actor and the role of what Gapless does by itself."""
BROKEN: Final = "log.broken"
"""The action of the row that is written where the end of the chain was not what this key had sealed."""
LIMIT: Final = 1000
FIELDS: Final = ("number", "at_us", "actor", "role", "action", "subject", "reason", "detail")
"""What the digest of a row covers, with the digest before it."""


class ChainGone(StoreError):
    """The row that has the end of the chain was removed, so that nothing can be added to the log."""


class AuditKey:
    """The key of the chain. Without a secret, everybody who can write to the database can make digests too."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: Secret | None = None) -> None:
        self._secret = b"" if secret is None else secret.reveal().encode()
        self.id = "none" if secret is None else self._digest("id")[:12]
        """Tells keys apart, and tells nothing of the secret."""

    @property
    def is_secret(self) -> bool:
        """Return True if there is a secret."""
        return bool(self._secret)

    def digest_of(self, row: dict[str, Any], previous: str) -> str:
        """Return the digest of a row that follows the one with the digest `previous`."""
        return f"{self.id}:{self._digest('row', previous, *(row[name] for name in FIELDS))}"

    def seal_of(self, end: str, number: int, digest: str) -> str:
        """Return the seal of an end of the chain, `head` or `pruned`: the row `number` has that digest."""
        return f"{self.id}:{self._digest(end, number, digest)}"

    def pseudonym_of(self, *parts: str) -> str | None:
        """Return what stands for a value that must not be in the log; None without a secret: it could be guessed."""
        return f"{self.id}:{self._digest('value', *parts)}" if self.is_secret else None

    def _digest(self, *parts: object) -> str:
        return hmac.new(self._secret, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return f"AuditKey({self.id})"


UNKEYED: Final = AuditKey()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is written into the log."""

    at_us: int
    actor: str
    action: str
    subject: str
    role: str | None = None
    detail: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """The number and the digest of a row at an end of the chain, and their seal. Number 0: there is no row yet."""

    number: int
    digest: str
    seal: str


def add(connection: Connection, action: Action, key: AuditKey = UNKEYED) -> ChainEnd:
    """Add a row to the chain; return the new end. Raises `ChainGone`.

    If the end is not as this key sealed it, a row with the action `log.broken` comes first: the log goes on, and
    says where.
    """
    head = _take_head(connection)
    if head.number and head.seal != key.seal_of("head", head.number, head.digest):
        said = json.dumps({"number": head.number, "key": head.seal.partition(":")[0] or None})
        broken = Action(at_us=action.at_us, actor=DAEMON, role=DAEMON, action=BROKEN, subject="audit log", detail=said)
        head = _append(connection, broken, head, key)
    return _append(connection, action, head, key)


def prune(connection: Connection, before_us: int, *, key: AuditKey, now_us: int, after: int = 0) -> Pruned:
    """Delete rows from before the day of `before_us`, and seal the digest of the last one: the chain goes on from it.

    A row says which were deleted. Not more than `LIMIT` rows are looked at.
    """
    before_us -= before_us % DAY_US
    if not _oldest(connection, before_us, after):
        connection.execute(delete(AUDIT_LOG).where(AUDIT_LOG.c.number.is_(None), AUDIT_LOG.c.at_us < before_us))
        return Pruned(count=0, after=None)
    _take_head(connection)
    old = _oldest(connection, before_us, after)  # again, because another process may have pruned them meanwhile
    if not old:
        return Pruned(count=0, after=None)
    first, last = old[0].number, old[-1]
    subject, detail = f"{first} to {last.number}", json.dumps({"rows": len(old)})
    what = Action(at_us=now_us, actor=DAEMON, role=DAEMON, action="log.prune", subject=subject, detail=detail)
    add(connection, what, key)
    seal = key.seal_of("pruned", last.number, last.digest)
    connection.execute(
        update(AUDIT_HEAD)
        .where(AUDIT_HEAD.c.id == 1)
        .values(pruned=last.number, pruned_digest=last.digest, pruned_seal=seal)
    )
    connection.execute(delete(AUDIT_LOG).where(AUDIT_LOG.c.number <= last.number))
    return Pruned(count=len(old), after=last.number if len(old) == LIMIT else None)


def _oldest(connection: Connection, before_us: int, after: int) -> Sequence[Any]:
    """Return the rows from before that time at the beginning of the chain, `LIMIT` at most."""
    query = select(AUDIT_LOG.c.number, AUDIT_LOG.c.at_us, AUDIT_LOG.c.digest).where(AUDIT_LOG.c.number > after)
    found = connection.execute(query.order_by(AUDIT_LOG.c.number).limit(LIMIT)).all()
    return list(takewhile(lambda row: row.at_us < before_us, found))


def ends(connection: Connection) -> tuple[ChainEnd, ChainEnd]:
    """Return the last row that was pruned and the last one that there is. Raises `ChainGone`."""
    row = connection.execute(select(AUDIT_HEAD).where(AUDIT_HEAD.c.id == 1)).mappings().first()
    if row is None:
        raise ChainGone("the end of the audit log was removed from the ledger: put it back from a backup")
    pruned = ChainEnd(number=row["pruned"], digest=row["pruned_digest"], seal=row["pruned_seal"])
    return pruned, ChainEnd(number=row["number"], digest=row["digest"], seal=row["seal"])


def rows(
    connection: Connection, *, since_us: int = 0, actor: str | None = None, after_id: int = 0, limit: int = LIMIT
) -> list[dict[str, Any]]:
    """Return rows in the order in which they were written, those from before the chain too."""
    query = select(AUDIT_LOG).where(AUDIT_LOG.c.id > after_id, AUDIT_LOG.c.at_us >= since_us)
    if actor is not None:
        query = query.where(AUDIT_LOG.c.actor == actor)
    return [dict(row) for row in connection.execute(query.order_by(AUDIT_LOG.c.id).limit(limit)).mappings()]


def page(
    connection: Connection,
    *,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    after: tuple[int, ...] | None = None,
    limit: int,
) -> NewestPage[dict[str, Any]]:
    """Return rows, the newest first: of this actor, with this action, on this subject."""
    asked = {"actor": actor, "action": action, "subject": subject}
    where = [AUDIT_LOG.c[name] == value for name, value in asked.items() if value is not None]
    found = newest.ids(connection, AUDIT_LOG.c.id, where, after=after, limit=limit)
    rows = newest.rows_of(connection, select(AUDIT_LOG), AUDIT_LOG.c.id, found.rows)
    return NewestPage(rows=[dict(row) for row in rows], after=found.after, is_full=found.is_full)


def chained(connection: Connection, after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the rows of the chain by their number."""
    while True:
        query = select(AUDIT_LOG).where(AUDIT_LOG.c.number > after).order_by(AUDIT_LOG.c.number).limit(LIMIT)
        found = [dict(row) for row in connection.execute(query).mappings()]
        yield from found
        if len(found) < LIMIT:
            return
        after = found[-1]["number"]


def outside_of_chain(connection: Connection) -> tuple[list[int], list[int]]:
    """Return the ids of rows without a number: those from before the first row of the chain, and those after it."""
    first = select(func.min(AUDIT_LOG.c.id)).where(AUDIT_LOG.c.number.is_not(None)).scalar_subquery()
    query = select(AUDIT_LOG.c.id, AUDIT_LOG.c.id > first).where(AUDIT_LOG.c.number.is_(None)).order_by(AUDIT_LOG.c.id)
    found = connection.execute(query).all()
    return [row[0] for row in found if not row[1]], [row[0] for row in found if row[1]]


def _take_head(connection: Connection) -> ChainEnd:
    """Return the end of the chain. Until the transaction ends, others wait here."""
    taken = connection.execute(update(AUDIT_HEAD).where(AUDIT_HEAD.c.id == 1).values(id=1))
    if not taken.rowcount:
        raise ChainGone("the end of the audit log was removed from the ledger: put it back from a backup")
    return ends(connection)[1]


def _append(connection: Connection, action: Action, head: ChainEnd, key: AuditKey) -> ChainEnd:
    row = {name: getattr(action, name) for name in FIELDS if name != "number"} | {"number": head.number + 1}
    digest = key.digest_of(row, head.digest)
    connection.execute(insert(AUDIT_LOG).values(**row, digest=digest))
    end = ChainEnd(number=row["number"], digest=digest, seal=key.seal_of("head", row["number"], digest))
    values = {"number": end.number, "digest": end.digest, "seal": end.seal}
    connection.execute(update(AUDIT_HEAD).where(AUDIT_HEAD.c.id == 1).values(**values))
    return end
