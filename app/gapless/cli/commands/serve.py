"""`gapless serve`: run the daemon until SIGTERM or Ctrl-C."""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import structlog

from gapless import daemon
from gapless.cli.common import Invocation, failing_clearly
from gapless.daemon import ALL_ROLES, ListenAddresses, Role
from gapless.settings import LogFormat, LogSettings

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
        sys.path.insert(0, str(Path.cwd()))  # for the module of a python destination
        run_loop(daemon.serve(settings, os.environ, roles=read_roles(roles), started=_show_addresses))


def start_logging(settings: LogSettings) -> None:
    """Log to stderr as configured. Libraries log from `warning` on."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = settings.format is LogFormat.JSON
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    for_programs = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    renderer: list[Any] = for_programs if as_json else [for_people]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    for package in ("gapless", "gapless_reconcilers"):
        logging.getLogger(package).setLevel(settings.level.value.upper())


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
