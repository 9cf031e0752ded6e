"""`gapless config`: which configuration is in force."""

import asyncio

import click

from gapless.bootstrap.ledger import digest_of
from gapless.cli.access import operate
from gapless.cli.common import Invocation, failing_clearly


@click.group()
def config() -> None:
    """Put an older configuration in force again."""


@config.command()
@click.pass_obj
def activate(invocation: Invocation) -> None:
    """Put this configuration in force, although a newer one was started with.

    A new configuration comes into force by itself, with the first daemon that is started with it. One that was in force
    before retires and brings back nothing until you activate it. The audit log shows who did.

    gapless --config gapless.toml config activate
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        done = asyncio.run(operate(settings, "config.activate", {"digest": digest_of(settings)}))
        click.echo(
            f"this configuration is in force, as generation {done['generation']}; start the processes again with it"
        )
