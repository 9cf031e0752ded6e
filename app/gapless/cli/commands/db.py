"""`gapless db`: the ledger's schema, and what a restored backup lacks."""

import asyncio
from datetime import datetime

import click

from gapless.bootstrap.store import open_configured_store
from gapless.cli.access import operate
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.param_types import TIME
from gapless.ledger import migrate, schema
from gapless.ledger.engine import SqliteStore, open_store
from gapless.ledger.engine.lock import hold
from gapless.settings import Settings


@click.group()
def db() -> None:
    """Upgrade the ledger, or tell it that it was restored."""


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


@db.command()
@click.option("--since", type=TIME, required=True, help="The time of the backup. 1h, 2026-01-31T06:00Z, …")
@click.pass_obj
def restored(invocation: Invocation, since: datetime) -> None:
    """Tell the ledger that it was restored from a backup, or lost its newest rows at a failover.

    Run it before the daemon starts again. What was recorded since the backup counts as no miss when a list shows it
    again. Its deliveries are held, because they may have been made before, and so are those that were pending in the
    backup. Of sources that list nothing, the interval is unrecoverable.

    gapless db restored --since 2026-01-31T06:00Z
    """
    with failing_clearly(debug=invocation.debug):
        done = asyncio.run(operate(invocation.settings(), "db.restored", {"since": since}))
        click.echo(f"noted for {done['streams']} streams; {done['held']} deliveries are held")
        if done["unlisted"]:
            click.echo(f"nothing can fill the interval of {', '.join(done['unlisted'])}: it is unrecoverable")
        click.echo("next: start the daemon, wait for a pass, then see gapless dead list --held; consumers that")
        click.echo("recognise repeats can have them all: gapless dead requeue --held --reason restored")


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
