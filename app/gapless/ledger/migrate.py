"""Brings the schema up to date.

`serve` upgrades SQLite itself, after it has made a copy. PostgreSQL is upgraded by `gapless db upgrade`, so
that replicas of the previous release go on running.
"""

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from gapless.ledger.engine.private_files import make_file
from gapless.ledger.schema import MIGRATIONS

if TYPE_CHECKING:
    from alembic.config import Config


def _config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - alembic takes a tenth of a start, and few starts need it

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def upgrade(connection: Connection) -> None:
    """Bring the schema to `schema.head()`, inside the caller's transaction."""
    from alembic import command  # noqa: PLC0415

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def back_up_sqlite(path: Path, version: str) -> Path:
    """Copy the database file beside itself, consistently and for this user alone, and return the copy's path."""
    copy = path.with_name(f"{path.name}.{version}.bak")
    make_file(copy)
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    return copy
