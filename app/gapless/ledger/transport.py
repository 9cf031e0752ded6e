"""The connection to PostgreSQL: whether what is sent over it is encrypted."""

from typing import Final
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Connection, text

NEAR: Final = frozenset(("", "localhost", "127.0.0.1", "::1"))
VERIFIED: Final = frozenset(("verify-full",))
"""Values of `sslmode` with which the server must prove who it is."""


def is_encrypted(connection: Connection) -> bool:
    """Return True if this connection to PostgreSQL uses TLS."""
    found = connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar()
    return bool(found)


def problem_of(url: str, *, encrypted: bool) -> str | None:
    """Return why others may read or change what is sent to the server of `url`, or None.

    A socket and a loopback address stay on this machine.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    hosts = [parts.hostname or "", *query.get("host", [])] if not query.get("host") else query["host"]
    if all(host in NEAR or host.startswith("/") for each in hosts for host in each.split(",")):
        return None
    if not encrypted:
        return "events travel to PostgreSQL in the open: add sslmode=verify-full to the store url"
    if query.get("sslmode", [""])[-1] not in VERIFIED:
        return "PostgreSQL is reached by TLS, and does not prove who it is: set sslmode=verify-full in the store url"
    return None
