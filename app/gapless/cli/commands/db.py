"""`gapless db`: the ledger's schema."""

import asyncio

import click

from gapless.bootstrap.ledger import open_configured_store
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.ledger import migrate, schema
from gapless.ledger.engine import SqliteStore, open_store
from gapless.ledger.engine.lock import hold
from gapless.settings import Settings


@click.group()
def db() -> None:
    """Check or upgrade the schema of the ledger."""


@db.command()
@click.pass_obj
def upgrade(invocation: Invocation) -> None:
    """Upgrade the schema to the version of this release. Replicas of the previous release can keep running.

    gapless db check || gapless db upgrade
    """
    with failing_clearly(debug=invocation.debug):
        before, after = asyncio.run(_upgrade(invocation.settings()))
        click.echo(f"schema {after}" if before == after else f"schema {before or 'empty'} -> {after}")


@db.command()
@click.pass_obj
def check(invocation: Invocation) -> None:
    """Show the version of the schema and the one that this release needs. Exit 1 if they differ."""
    with failing_clearly(debug=invocation.debug):
        version = asyncio.run(_version(invocation.settings()))
        click.echo(f"schema {version or 'empty'}, this release needs {schema.head()}")
        raise SystemExit(Exit.OK if version == schema.head() else Exit.NEGATIVE)


async def _upgrade(settings: Settings) -> tuple[str | None, str]:
    store = open_store(settings.store.url.read().reveal())
    try:
        was = await store.read(schema.version)
        if isinstance(store, SqliteStore):
            with hold(store.path):
                if was is not None and was != schema.head():
                    migrate.back_up_sqlite(store.path, was)
                await store.write(migrate.upgrade)
        else:
            await store.write(migrate.upgrade)
        return was, schema.head()
    finally:
        await store.close()


async def _version(settings: Settings) -> str | None:
    store = open_configured_store(settings)
    try:
        return await store.read(schema.version)
    finally:
        await store.close()
