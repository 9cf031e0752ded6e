"""`gapless serve`: run the daemon until SIGTERM or Ctrl-C."""

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

import click

from gapless import daemon
from gapless.cli.common import Invocation, failing_clearly
from gapless.cli.logs import start_logging
from gapless.daemon import ALL_ROLES, ListenAddresses, Role

log = logging.getLogger("gapless.cli.serve")


@click.command()
@click.option("--role", "roles", help="Comma separated: receive, reconcile, deliver, console. Default: all.")
@click.pass_obj
def serve(invocation: Invocation, roles: str | None) -> None:
    """Run the daemon: receive, reconcile, deliver, show the status.

    On SQLite one process has all roles. On PostgreSQL you can run several processes:

        gapless serve --role receive
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        start_logging(settings.log)
        for remark in invocation.remarks():
            log.warning("configuration_remark", extra={"remark": remark})
        run_loop(daemon.serve(settings, os.environ, roles=read_roles(roles), started=_show_addresses))


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop if it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform

        factory: Any = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def read_roles(text: str | None) -> frozenset[Role]:
    """Return the named roles. Raises `click.BadParameter`."""
    if text is None:
        return ALL_ROLES
    try:
        return frozenset(Role(word.strip()) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{error}; use {', '.join(Role)}", param_hint="--role") from None


def _show_addresses(addresses: ListenAddresses) -> None:
    if addresses.public:
        click.echo(f"webhooks  {addresses.public}/webhooks/<source>", err=True)
    click.echo(f"console   {addresses.private}", err=True)
