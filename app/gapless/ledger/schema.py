"""The schema's version: the one that a database has, and those that this release knows.

It does not import Alembic, which is slow to import and which only `migrate` needs.
"""

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = tuple(sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py")))
"""Every version that this release can upgrade from, the oldest first. A migration's file begins with its own."""
VERSION_TABLE = "alembic_version"
FOREIGN = "the store holds tables of something else; give Gapless a database of its own in store.url"


def head() -> str:
    """Return the version that this release writes."""
    return VERSIONS[-1]


def version(connection: Connection) -> str | None:
    """Return the version of the database; None: it is empty."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
    return found


def is_foreign(connection: Connection) -> bool:
    """Return True if the database has tables of something else, and none of ours."""
    return version(connection) is None and bool(inspect(connection).get_table_names())


def mismatch(found: str | None) -> str | None:
    """Return the sentence that says what to do about the version `found`; None: this release writes it."""
    if found == head():
        return None
    if found is None or found in VERSIONS:
        return f"the ledger's schema is {found or 'empty'}, this release wants {head()}: run gapless db upgrade first"
    return f"the ledger's schema is {found}, which this release does not know (it wants {head()}): run a newer one"


def is_current(connection: Connection) -> bool:
    """Return True if the schema is the one that this release writes."""
    return version(connection) == head()
