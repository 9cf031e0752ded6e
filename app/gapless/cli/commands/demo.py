"""`gapless demo`: the whole loop in one terminal, against a provider that loses webhooks."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from gapless.cli.common import Exit
from gapless.cli.param_types import DURATION, Duration
from gapless.cli.terminal import plain
from gapless.demo import provider_only, run
from gapless.demo.configuration import (
    PROVIDER_ONLY_RATE,
    RATE,
    SCENARIO,
    Addresses,
    DemoOptions,
    DemoSecrets,
    Outage,
    Ports,
    ProviderOnlyOptions,
    make_faults,
    plan_phases,
)
from gapless.demo.output import print_counts, print_opening, print_provider, print_report
from gapless.demo.report import DemoReport
from gapless.demo.terminal import open_display
from gapless.errors import Unavailable, UserError

SERVE = (sys.executable, "-P", "-m", "gapless", "serve")
"""Starts the daemon with this interpreter, wherever the console script is installed."""
INTERRUPTED = 130


class OutageSpan(click.ParamType[Outage]):
    """LENGTH/EVERY such as 5s/30s."""

    name = "length/every"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Outage:
        """Return the outage; LENGTH must be shorter than EVERY."""
        if isinstance(value, Outage):
            return value
        length, _, every = str(value).partition("/")
        outage = Outage(length_s=DURATION.convert(length, param, ctx), every_s=DURATION.convert(every, param, ctx))
        if not 0 < outage.length_s < outage.every_s:
            self.fail(f"{value!r} is not LENGTH/EVERY with a length below EVERY, such as 5s/30s", param, ctx)
        return outage


SHARE = click.FloatRange(0.0, 1.0)
PORT = click.IntRange(0, 65535)


@click.command()
@click.option(
    "--for",
    "length_s",
    type=Duration(timedelta(seconds=2)),
    help="End after about this time. Default: at Ctrl-C.",
)
@click.option(
    "--rate", type=click.FloatRange(0.1, 500.0), help="Events per second. Default: 20; 2 with --provider-only."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random choices.")
@click.option("--store", help="postgresql://… of an empty database. Default: a temporary SQLite file.")
@click.option("--keep", is_flag=True, help="Keep ledger, configuration and log, and show where they are.")
@click.option("--no-kill", is_flag=True, help="Do not kill the receiver.")
@click.option("--console-port", type=PORT, default=0, help="Port of the private listener. Default: a free one.")
@click.option("--webhook-port", type=PORT, default=0, help="Port of the public listener. Default: a free one.")
@click.option("--provider-port", type=PORT, default=0, help="Port of the provider's API. Default: a free one.")
@click.option("--provider-only", is_flag=True, help="Run the provider alone, to test your own set-up.")
@click.option("--webhook-url", help="With --provider-only: where its webhooks go.")
@click.option("--drop", type=SHARE, help="Share of webhooks that are never sent.  [demo: 0.2]")
@click.option("--duplicate", type=SHARE, help="Share of webhooks that are sent twice.  [demo: 0.1]")
@click.option("--delay", "delay_s", type=DURATION, help="Time before a webhook is sent.")
@click.option("--reorder", type=SHARE, help="Share of webhooks that later ones overtake.  [demo: 0.1]")
@click.option("--late-visible", type=SHARE, help="Share of events that the list shows 2 s late.  [demo: 0.05]")
@click.option("--bad-signature", type=SHARE, help="Share of attempts with a wrong signature.  [demo: 0.05]")
@click.option("--throttle-every", type=click.IntRange(0), help="Every n-th API request is answered 429.  [demo: 7]")
@click.option("--errors", "error_rate", type=SHARE, help="Share of API requests answered 500.  [demo: 0.05]")
@click.option(
    "--outage", type=OutageSpan(), help="Nothing answers and nothing is sent, such as 5s/30s: 5 s every 30 s."
)
@click.option("--hide-from-list", "hidden_types", multiple=True, hidden=True, help="A type that the list never shows.")
def demo(**options: Any) -> None:
    """Watch the daemon recover webhooks that a fake provider loses. A consumer checks every event.

    Exit code 0 only if the consumer has exactly the provider's events, each under one idempotency id.
    """
    if options["webhook_url"] and not options["provider_only"]:
        raise click.UsageError("--webhook-url goes with --provider-only; the demo sends its webhooks to its own daemon")
    if options["store"] and not options["store"].startswith(("postgresql://", "postgres://")):
        raise click.UsageError("--store is not postgresql://…; leave it out for a temporary SQLite file")
    sys.exit(_run(_provider_only if options["provider_only"] else _demo, options))


def _run(main: Callable[[dict[str, Any]], Any], values: dict[str, Any]) -> int:
    """Run `main` and return the exit code."""
    try:
        return int(asyncio.run(main(values)))
    except (UserError, Unavailable) as error:
        click.echo(f"gapless: {error}", err=True)
        return Exit.USAGE if isinstance(error, UserError) else Exit.UNAVAILABLE
    except (asyncio.CancelledError, KeyboardInterrupt):
        return INTERRUPTED


async def _demo(values: dict[str, Any]) -> int:
    options = DemoOptions(
        faults=make_faults(values, SCENARIO),
        length_s=values["length_s"],
        rate=values["rate"] or RATE,
        seed=values["seed"],
        outage=values["outage"],
        ports=Ports(provider=values["provider_port"], webhooks=values["webhook_port"], console=values["console_port"]),
        store=values["store"],
        keep=values["keep"],
        kill=not values["no_kill"],
    )
    console = Console(file=plain(sys.stdout))
    report = await _run_demo(options, console)
    print_report(console, report)
    return Exit.OK if report.comparison.closed else Exit.NEGATIVE


async def _run_demo(options: DemoOptions, console: Console) -> DemoReport:
    """Run the demo on `console` and return its report."""
    plan = plan_phases(options.length_s, drop=options.faults.drop, kill=options.kill)
    with open_display(console, plan) as display:

        def announce(addresses: Addresses, directory: Path) -> None:
            print_opening(console, addresses, directory if options.keep else None)
            display.open(addresses.private)

        return await run.run(
            options, command=SERVE, environ=os.environ, stop=stop_on_signals(), show=display.show, announce=announce
        )


async def _provider_only(values: dict[str, Any]) -> int:
    options = ProviderOnlyOptions(
        faults=make_faults(values, {}),
        webhook_url=values["webhook_url"],
        length_s=values["length_s"],
        rate=values["rate"] or PROVIDER_ONLY_RATE,
        seed=values["seed"],
        outage=values["outage"],
        port=values["provider_port"],
    )
    console, own = Console(file=plain(sys.stdout)), DemoSecrets()
    announce, tell = partial(print_provider, console, options, own), partial(print_counts, console)
    await provider_only.run(options, own, stop=stop_on_signals(), announce=announce, tell=tell)
    return Exit.OK


def stop_on_signals() -> asyncio.Event:
    """Return an event that the first Ctrl-C, SIGTERM or SIGHUP sets; the second cancels the calling task."""
    stop, loop, task = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    return stop
