"""`gapless db`: the ledger's schema."""

import asyncio

import click

from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.ledger import migrate, schema
from gapless.ledger.engine import SqliteStore, open_store
from gapless.ledger.engine.lock import hold
from gapless.settings import Settings


@click.group()
def db() -> None:
    """The ledger's schema."""


@db.command()
@click.pass_obj
def upgrade(call: Invocation) -> None:
    """Bring the schema to this release's version. Replicas of the release before go on running meanwhile.

    gapless db check || gapless db upgrade
    """
    with failing_clearly(debug=call.debug):
        was, now = asyncio.run(_upgrade(call.settings()))
        click.echo(f"schema {now}" if was == now else f"schema {was or 'empty'} -> {now}")


@db.command()
@click.pass_obj
def check(call: Invocation) -> None:
    """Say which version the schema has and which one this release wants. Exit 1 if they differ."""
    with failing_clearly(debug=call.debug):
        version = asyncio.run(_version(call.settings()))
        click.echo(f"schema {version or 'empty'}, this release wants {schema.head()}")
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
    store = open_store(settings.store.url.read().reveal())
    try:
        return await store.read(schema.version)
    finally:
        await store.close()
