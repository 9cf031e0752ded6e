"""Browsers that have signed in to the console.

A cookie is 256 random bits. The ledger has its digest, the name of the token, and a proof: an HMAC of the token under
the cookie. So a session ends when its token is revoked, expires or is replaced, and whoever reads the ledger can
neither use a session nor test guesses of a configured token.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from gapless.ledger.tables import SESSION

RANDOM_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSession:
    """A session as the ledger knows it. Times are microseconds."""

    token: str
    proof: str
    created_us: int
    until_us: int


def new_cookie() -> str:
    """Return the value of a new cookie."""
    return secrets.token_urlsafe(RANDOM_BYTES)


def proof_of(cookie: str, token: bytes) -> str:
    """Return what shows, to whoever has the cookie, that the session was begun with this token."""
    return hmac.new(cookie.encode(), token, hashlib.sha256).hexdigest()


def begin(connection: Connection, cookie: str, session: BrowserSession) -> None:
    """Begin a session, and forget those that are over."""
    connection.execute(delete(SESSION).where(SESSION.c.until_us <= session.created_us))
    values = {name: getattr(session, name) for name in BrowserSession.__slots__}
    connection.execute(insert(SESSION).values(digest=_digest(cookie), **values))


def find(connection: Connection, cookie: str, now_us: int) -> BrowserSession | None:
    """Return the session of the cookie; None: there is none, or it is over."""
    columns = (SESSION.c[name] for name in BrowserSession.__slots__)
    where = (SESSION.c.digest == _digest(cookie), SESSION.c.until_us > now_us)
    row = connection.execute(select(*columns).where(*where)).mappings().first()
    return None if row is None else BrowserSession(**row)


def end(connection: Connection, cookie: str) -> int:
    """End the session; return how many there were."""
    return connection.execute(delete(SESSION).where(SESSION.c.digest == _digest(cookie))).rowcount


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
