"""A PostgreSQL database for the demo: made ready if it is empty, refused if it is not."""

from gapless.errors import UserError
from gapless.ledger import migrate, schema
from gapless.ledger.engine import open_store


class StoreUnfit(UserError):
    """The database has a ledger already, and the demo must not touch it."""


async def prepare_store(url: str) -> None:
    """Give an empty PostgreSQL database our schema; SQLite needs nothing. Raises `StoreUnfit` and `StoreError`."""
    if url.startswith("sqlite:"):
        return
    store = open_store(url)
    try:
        if await store.read(schema.version) is not None:
            raise StoreUnfit("--store: this database has a ledger already; give the demo an empty one (createdb demo)")
        await store.write(migrate.upgrade)
    finally:
        await store.close()
