"""The key of the audit log's chain: the configured one, else one that is made once and kept beside a SQLite ledger."""

import os
import secrets
from pathlib import Path

from gapless.ledger.audit_log import UNKEYED, AuditKey
from gapless.ledger.engine import SqliteStore, Store
from gapless.settings import SecretRef, Settings

OWNER_ONLY = 0o600


def key_path(ledger: Path) -> Path:
    """Return the path of the key beside a SQLite ledger."""
    return ledger.with_name(ledger.name + ".audit-key")


def open_audit_key(settings: Settings, store: Store, *, makes: bool) -> AuditKey:
    """Return the key. On PostgreSQL there is none unless `store.audit_key` is set, because replicas share no file.

    `makes`: make the file if there is none, readable only for this user; the caller holds the ledger's lock.
    Raises `SecretUnavailable` and `OSError`.
    """
    if settings.store.audit_key is not None:
        return AuditKey(settings.store.audit_key.read())
    if not isinstance(store, SqliteStore):
        return UNKEYED
    path = key_path(store.path)
    if not path.exists():
        if not makes:
            return UNKEYED
        _make(path)
    return read_audit_key(path)


def read_audit_key(path: Path) -> AuditKey:
    """Return the key in a file. Raises `SecretUnavailable`."""
    return AuditKey(SecretRef(path=path).read())


def _make(path: Path) -> None:
    """Write a new key, whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
        file.write(f"{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
