"""Actions of the API that came with a key of the caller's, so that a repeated request does not act twice.

A row is made before the action and gets the result after it. One without a result is under way, or its process has
ended: what became of it, the audit log says.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, select, update

from gapless.domain import DAY_US
from gapless.ledger.engine import dialect
from gapless.ledger.tables import PERFORMED

KEPT_US: Final = DAY_US
"""Time for which a key is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """What is known of a key: the digest of what was asked, and the result as JSON, or None."""

    asked: str
    result: str | None


def digest_of(*parts: str) -> str:
    """Return the digest of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def take(connection: Connection, digest: str, asked: str, now_us: int) -> Performed | None:
    """Take the key for what is asked; return what is known of it if it was taken before. Forgets keys of yesterday."""
    connection.execute(delete(PERFORMED).where(PERFORMED.c.at_us < now_us - KEPT_US))
    if dialect.insert_or_ignore(connection, PERFORMED, {"digest": digest, "asked": asked, "at_us": now_us}):
        return None
    query = select(PERFORMED.c.asked, PERFORMED.c.result).where(PERFORMED.c.digest == digest)
    return Performed(**connection.execute(query).mappings().one())


def finish(connection: Connection, digest: str, result: str) -> int:
    """Keep the result."""
    return connection.execute(update(PERFORMED).where(PERFORMED.c.digest == digest).values(result=result)).rowcount


def give_back(connection: Connection, digest: str) -> int:
    """Forget the key: nothing was changed under it."""
    return connection.execute(delete(PERFORMED).where(PERFORMED.c.digest == digest)).rowcount
