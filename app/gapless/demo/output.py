"""Everything that the demo prints before and after its run."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gapless.demo.configuration import Addresses, DemoSecrets, ProviderOnlyOptions, try_it_config
from gapless.demo.provider_only import ProviderCounts
from gapless.demo.report import DemoComparison, DemoReport
from gapless.demo.terminal import shown


def print_opening(console: Console, addresses: Addresses, directory: Path | None) -> None:
    """Print the addresses of all parts, the private listener first, and the `directory` that will be kept."""
    parts = [
        ("console", addresses.private, "the daemon's own pages and /metrics, in a moment"),
        ("provider", addresses.provider, "Stripe's wire format; it loses webhooks"),
        ("webhooks", addresses.webhook_url, "where the provider sends them: the daemon"),
        ("consumer", addresses.consumer, "checks every signature and idempotency id"),
    ]
    for name, address, remark in parts:
        console.print(f"[bold]{name:<9}[/] [cyan]{address:<47}[/] [dim]{remark}[/]", highlight=False, soft_wrap=True)
    if directory is not None:
        console.print(f"[bold]files[/]     {escape(str(directory))}", highlight=False, soft_wrap=True)
    console.print()


def print_report(console: Console, report: DemoReport) -> None:
    """Print the numbers of the run, the result of the comparison, and the next steps."""
    table = Table.grid(padding=(0, 2))
    for name, number in rows(report):
        table.add_row(name, escape(number))
    console.print()
    console.print(table)
    console.print()
    style = "bold green" if report.comparison.closed else "bold red"
    console.print(headline(report), style=style, highlight=False, soft_wrap=True)
    for finding in findings(report.comparison):
        console.print(f"  {finding}", style="red", highlight=False, soft_wrap=True)
    console.print("\nWhat next", style="bold")
    for step, command in NEXT_STEPS:
        console.print(f"  {step:<28} [cyan]{command}[/]", highlight=False, soft_wrap=True)


def print_provider(console: Console, options: ProviderOnlyOptions, demo_secrets: DemoSecrets, base_url: str) -> None:
    """Print everything that a daemon of your own needs to read the provider. The secrets are of no use elsewhere."""
    target = options.webhook_url or "nowhere; say where with --webhook-url"
    for name, text in (("provider", base_url), ("webhooks", f"to {target}")):
        console.print(f"{name:<9} {text}", markup=False, highlight=False, soft_wrap=True)
    exports = f"export DEMO_API_KEY={demo_secrets.api_key}\nexport DEMO_WEBHOOK_SECRET={demo_secrets.webhook}\n"
    config = try_it_config(base_url)
    text = f"\n# in the shell of your daemon\n{exports}\n# in its gapless.toml\n{config}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_counts(console: Console, counts: ProviderCounts) -> None:
    """Print the provider's counts in one line."""
    text = (
        f"{counts.elapsed_s:7.1f}s  events {counts.events}  webhooks arrived {counts.arrived}"
        f"  requests {counts.requests}"
    )
    console.print(text, markup=False, highlight=False, soft_wrap=True)


MOST_KEYS = 10


NEXT_STEPS = (
    ("What did your handler lose?", "gapless audit stripe-live --since 30d --against ids.csv"),
    ("Point Stripe at Gapless", "gapless check && gapless serve   (settings: config/gapless.example.toml)"),
    ("Break your own set-up", "gapless demo --provider-only --webhook-url http://127.0.0.1:8000/webhooks/stripe-demo"),
)


def rows(report: DemoReport) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table: the name of a number, and the number."""
    last, comparison = report.last, report.comparison
    yield "events at the provider", str(last.at_provider)
    yield "webhooks lost", f"{report.lost} ({report.dropped} never sent, {report.given_up} given up)"
    yield "in the ledger by webhook", shown(last.by_webhook)
    yield "in the ledger by list", shown(last.by_list)
    yield "at the consumer", str(last.at_consumer)
    yield "duplicate webhooks absorbed", shown(last.duplicates)
    if report.recovery is not None:
        middle, longest = (span.total_seconds() for span in report.recovery)
        yield "occurred to recovered", f"median {middle:.1f} s, longest {longest:.1f} s"
    yield "receiver dead (kill -9)", ", ".join(f"{span_s:.1f} s" for span_s in report.downtimes_s) or "never"
    yield "API requests failed (429, 5xx)", str(report.refusals)
    yield "attempts beyond the first", f"{comparison.repeated}{_idempotency(comparison)}"


def _idempotency(comparison: DemoComparison) -> str:
    if comparison.changed:
        return f", {len(comparison.changed)} events with another idempotency id"
    return ", each with the same idempotency id" if comparison.repeated else ""


def findings(comparison: DemoComparison) -> Iterator[str]:
    """Yield one sentence for each difference; none if the gap is closed."""
    missing, unexpected, changed = comparison.missing, comparison.unexpected, comparison.changed
    if missing:
        yield f"{len(missing)} events of the provider never reached the consumer: {_keys(missing)}"
    if unexpected:
        yield f"{len(unexpected)} events at the consumer are unknown to the provider: {_keys(unexpected)}"
    if changed:
        yield f"{len(changed)} events did not keep an idempotency id of their own: {_keys(changed)}"
    if comparison.refused:
        yield f"{comparison.refused} deliveries had an invalid signature"


def headline(report: DemoReport) -> str:
    """Return the result in one line."""
    if not report.comparison.closed:
        return "The gap is open."
    count = report.last.at_provider
    return f"The gap is closed: the consumer has all {count} events of the provider, and no other."


def _keys(keys: tuple[str, ...]) -> str:
    more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return ", ".join(keys[:MOST_KEYS]) + more
