"""The program `gapless`: its options, and its commands."""

from pathlib import Path

import click

import gapless
from gapless.cli.commands.audit import audit
from gapless.cli.commands.check import check
from gapless.cli.commands.db import db
from gapless.cli.commands.dead import dead
from gapless.cli.commands.demo import demo
from gapless.cli.commands.event import event
from gapless.cli.commands.import_ import import_
from gapless.cli.commands.providers import providers
from gapless.cli.commands.quarantine import quarantine
from gapless.cli.commands.serve import serve
from gapless.cli.commands.source import source
from gapless.cli.commands.status import status
from gapless.cli.common import Invocation


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Default: GAPLESS_CONFIG, else gapless.toml."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(gapless.__version__, prog_name="gapless")
@click.pass_context
def main(context: click.Context, config: Path | None, debug: bool) -> None:  # noqa: FBT001 - click calls it
    """No webhook event stays missed, and you can prove it.

    \b
    gapless demo --for 30s                     see it work
    gapless check && gapless serve             run it
    gapless audit SOURCE --against ids.csv     what your handler lost, without running it

    Exit codes: 0 yes, 1 no (something is missing, a check failed), 2 wrong call or configuration,
    3 the store, the daemon or the provider could not be reached.
    """  # noqa: D301 - click's mark for lines that stay as they are
    context.obj = Invocation(config=config, debug=debug)


for command in (serve, demo, check, status, audit, import_, source, event, dead, quarantine, providers, db):
    main.add_command(command)
