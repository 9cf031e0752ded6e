"""`gapless config`: which configuration is in force, and files to begin with."""

import asyncio
from pathlib import Path

import click

from gapless.bootstrap.ledger import digest_of
from gapless.cli import shipped
from gapless.cli.access import operate
from gapless.cli.common import Invocation, failing_clearly
from gapless.errors import UserError


@click.group()
def config() -> None:
    """Files to begin with, and an older configuration again."""


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


@config.command()
def example() -> None:
    """Print the file that has every setting, with what it does and its default.

    gapless config example > gapless.example.toml
    """
    click.echo(shipped.read_example(), nl=False)


@config.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.pass_obj
def files(invocation: Invocation, folder: Path, *, force: bool) -> None:
    """Write the ready-made files to FOLDER: alert rules, what Prometheus scrapes, the file with every setting.

    gapless config files gapless-files
    """
    with failing_clearly(debug=invocation.debug):
        found = [(folder / path, content) for path, content in shipped.files()]
        there = [path for path, _ in found if path.exists()]
        if there and not force:
            raise UserError(f"{there[0]} is there already; choose another folder, or write over it with --force")
        for path, content in found:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            click.echo(path)
