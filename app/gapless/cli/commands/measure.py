"""`gapless measure`: what was measured on this account."""

import asyncio
import os
from collections.abc import Iterator
from datetime import datetime, timedelta

import click

from gapless.bootstrap.sources import known_sources
from gapless.cli import output
from gapless.cli.access import open_reader
from gapless.cli.common import Invocation, failing_clearly, find_source
from gapless.cli.param_types import TIME
from gapless.clock import ProcessClock
from gapless.ledger.engine import StoreInvalid
from gapless.ledger.times import ledger_time
from gapless.operations.measure import LEAST, MeasuredTimes, Measures, read_measures
from gapless.settings import Settings
from gapless.text import format_time, format_value

FACTS = (
    "Only such figures, of your own account, are facts. The table of recovery times in docs/figures.md is simulated: "
    "it rests on what is assumed of each vendor."
)


@click.command()
@click.argument("source")
@click.option(
    "--since", type=TIME, default="7d", show_default=True, help="Events that occurred since: 30d, 2026-01-31."
)
@click.option("--json", "json_", is_flag=True, help="As JSON; null is unknown.")
@click.pass_obj
def measure(invocation: Invocation, source: str, since: datetime, *, json_: bool) -> None:
    """Show how late webhooks came, and how soon losses were found.

    It reads the ledger of your own account, and asks the provider nothing. What has too few samples is unknown.

    gapless measure stripe-live --since 30d
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        find_source(settings, source)
        found = asyncio.run(_read(settings, source, since))
        if json_:
            output.as_json({**_values(found), "facts": FACTS})
            return
        _show(found)


async def _read(settings: Settings, name: str, since: datetime) -> Measures:
    async with open_reader(settings) as store:
        sources = await store.read(known_sources, settings, os.environ)
        if name not in sources:
            raise StoreInvalid(f"the ledger does not know source {name!r} yet: start `gapless serve`")
        now, _ = await ledger_time(store, ProcessClock())
        return await store.read(read_measures, source=sources[name], since=since, now=now)


def _show(found: Measures) -> None:
    click.echo(f"{found.source}, events that occurred since {format_time(found.since)}")
    click.echo()
    columns = ("measure", "samples", "median", "p95", "p99", "p99.9", "longest")
    output.table(columns, _rows(found), empty="")
    click.echo()
    if found.not_recovered:
        click.echo(f"missed and not recorded yet: {found.not_recovered}")
    click.echo(_requests(found))
    click.echo()
    click.echo(f"unknown: too few samples, at least {LEAST}, or a hundred for p99 and a thousand for p99.9. {FACTS}")


def _rows(found: Measures) -> Iterator[tuple[object, ...]]:
    yield "webhook after its event", *_cells(found.webhook_lag)
    yield "list shows an event", *_cells(found.list_delay)
    yield "missed event recorded", *_cells(found.recovery)
    for cause, spread in found.recovery_by_cause.items():
        yield f"  {cause.value.replace('_', ' ')}", *_cells(spread)


def _cells(spread: MeasuredTimes) -> tuple[object, ...]:
    times = (spread.median, spread.p95, spread.p99, spread.p999, spread.longest)
    return (spread.samples, *(None if each is None else _span(each) for each in times))


def _span(span: timedelta) -> str:
    """Return a time as in the table: under a minute in tenths of a second."""
    seconds = span.total_seconds()
    return f"{seconds:.1f}s" if seconds < 60 else format_value(span)  # noqa: PLR2004 - a minute


def _requests(found: Measures) -> str:
    use = found.requests
    if use is None:
        return "requests: unknown, nothing was asked yet"
    share = "" if use.ratio is None else f" of {use.granted:,} ({use.ratio:.1%})"
    by_purpose = sorted(use.by_purpose.items(), key=lambda each: -each[1])
    parts = "".join(f"; {purpose} {count:,}" for purpose, count in by_purpose)
    return f"requests in {format_value(use.period)}: {use.used:,}{share}{parts}"


def _values(found: Measures) -> dict[str, object]:
    use = found.requests
    return {
        "source": found.source,
        "since": found.since,
        "webhook_lag": _plain(found.webhook_lag),
        "list_delay": _plain(found.list_delay),
        "recovery": _plain(found.recovery),
        "recovery_by_cause": {cause.value: _plain(each) for cause, each in found.recovery_by_cause.items()},
        "not_recovered": found.not_recovered,
        "requests": None
        if use is None
        else {
            "period_s": use.period.total_seconds(),
            "granted": use.granted,
            "used": use.used,
            "by_purpose": dict(use.by_purpose),
        },
    }


def _plain(spread: MeasuredTimes) -> dict[str, object]:
    def seconds(span: timedelta | None) -> float | None:
        return None if span is None else span.total_seconds()

    return {
        "samples": spread.samples,
        "median_s": seconds(spread.median),
        "p95_s": seconds(spread.p95),
        "p99_s": seconds(spread.p99),
        "p999_s": seconds(spread.p999),
        "longest_s": seconds(spread.longest),
    }
