"""The schema's version: whether this release knows it, and how to bring it up to date.

SQLite is upgraded by `serve` itself, after a copy was made; PostgreSQL by `gapless db upgrade`, so
that replicas of one release before go on running.
"""

import sqlite3
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

SCRIPTS = Path(__file__).parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


@cache
def head() -> str:
    """The version that this release writes."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


@cache
def known() -> frozenset[str]:
    """Every version that this release can upgrade from."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def version(connection: Connection) -> str | None:
    """The version of the database; None: it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def is_current(connection: Connection) -> bool:
    """True if the schema is the one that this release writes."""
    return version(connection) == head()


def upgrade(connection: Connection) -> None:
    """Bring the schema to `head`, inside the caller's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def back_up_sqlite(path: Path, version: str) -> Path:
    """Copy the database file beside itself, consistently, and return the copy's path."""
    copy = path.with_name(f"{path.name}.{version}.bak")
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    return copy
