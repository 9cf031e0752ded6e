"""The program `gapless`: its options, and its commands."""

from pathlib import Path

import click

import gapless
from gapless.cli.audit import audit
from gapless.cli.check import check
from gapless.cli.common import Call
from gapless.cli.db import db
from gapless.cli.dead import dead
from gapless.cli.demo import demo
from gapless.cli.event import event
from gapless.cli.import_ import import_
from gapless.cli.providers import providers
from gapless.cli.quarantine import quarantine
from gapless.cli.serve import serve
from gapless.cli.source import source
from gapless.cli.status import status


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
    context.obj = Call(config=config, debug=debug)


for command in (serve, demo, check, status, audit, import_, source, event, dead, quarantine, providers, db):
    main.add_command(command)
