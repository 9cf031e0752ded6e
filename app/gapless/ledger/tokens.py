"""Named tokens of the private listener. Only their digests are stored.

A token is 256 random bits, so its SHA-256 needs no salt and no slow hash: there is nothing to guess.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from gapless.ledger.tables import TOKEN
from gapless_reconcilers.kit.contract import Secret

PREFIX: Final = "gapless_"
"""The beginning of each token, so that scanners recognise one that was published."""
RANDOM_BYTES: Final = 32
LENGTH: Final = len(PREFIX) + 43


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """A token as the ledger knows it. `sources` and `destinations` None: all of them; times in microseconds."""

    name: str
    role: str
    sources: tuple[str, ...] | None
    destinations: tuple[str, ...] | None
    created_us: int
    created_by: str
    expires_us: int | None
    revoked_us: int | None
    revoked_by: str | None

    def is_valid(self, now_us: int) -> bool:
        """Return True unless it is revoked or has expired."""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


def new_token() -> Secret:
    """Return a new random token."""
    return Secret(PREFIX + secrets.token_urlsafe(RANDOM_BYTES))


def looks_named(presented: bytes) -> bool:
    """Return True if the text has the form of a named token, so that it is worth a look into the ledger."""
    return len(presented) == LENGTH and presented.startswith(PREFIX.encode())


def digest_of(presented: bytes) -> str:
    """Return the digest by which a token is stored and found."""
    return hashlib.sha256(presented).hexdigest()


def add(
    connection: Connection,
    *,
    name: str,
    role: str,
    digest: str,
    now_us: int,
    by: str,
    sources: Iterable[str] | None = None,
    destinations: Iterable[str] | None = None,
    expires_us: int | None = None,
) -> None:
    """Add a token. The caller has asked `named` whether the name is free."""
    values = {
        "name": name,
        "role": role,
        "sources": _encoded(sources),
        "destinations": _encoded(destinations),
        "digest": digest,
        "created_us": now_us,
        "created_by": by,
        "expires_us": expires_us,
    }
    connection.execute(insert(TOKEN).values(**values))


def find(connection: Connection, digest: str) -> StoredToken | None:
    """Return the token with that digest, also one that is revoked or has expired."""
    row = connection.execute(select(TOKEN).where(TOKEN.c.digest == digest)).mappings().first()
    if row is None or not hmac.compare_digest(str(row["digest"]), digest):
        return None
    return _stored(row)


def named(connection: Connection, name: str) -> StoredToken | None:
    """Return the token of that name, also one that is revoked or has expired: a name is given once."""
    row = connection.execute(select(TOKEN).where(TOKEN.c.name == name)).mappings().first()
    return None if row is None else _stored(row)


def tokens(connection: Connection) -> list[StoredToken]:
    """Return all tokens by name."""
    return [_stored(row) for row in connection.execute(select(TOKEN).order_by(TOKEN.c.name)).mappings()]


def revoke(connection: Connection, name: str, *, now_us: int, by: str) -> bool:
    """Revoke the token of that name; return False if there is none, or it is revoked already."""
    where = (TOKEN.c.name == name, TOKEN.c.revoked_us.is_(None))
    done = connection.execute(update(TOKEN).where(*where).values(revoked_us=now_us, revoked_by=by))
    return bool(done.rowcount)


def _stored(row: Any) -> StoredToken:
    names = ("name", "role", "created_us", "created_by", "expires_us", "revoked_us", "revoked_by")
    return StoredToken(
        **{name: row[name] for name in names},
        sources=_decoded(row["sources"]),
        destinations=_decoded(row["destinations"]),
    )


def _encoded(names: Iterable[str] | None) -> str | None:
    return None if names is None else json.dumps(sorted(set(names)))


def _decoded(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(json.loads(names))
