"""What the demo prints before and after the show."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gapless.demo.alone import Told
from gapless.demo.configuration import Addresses, DemoSecrets, try_it_config
from gapless.demo.figures import Report
from gapless.demo.options import AloneOptions
from gapless.demo.summary import NEXT_STEPS, findings, headline, rows


def print_opening(console: Console, addresses: Addresses, directory: Path | None) -> None:
    """Where everything listens, the private listener first. `directory`: what will be kept."""
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


def print_report(console: Console, report: Report) -> None:
    """The numbers of the run, the verdict, and what to do next."""
    table = Table.grid(padding=(0, 2))
    for what, how_much in rows(report):
        table.add_row(what, escape(how_much))
    console.print()
    console.print(table)
    console.print()
    style = "bold green" if report.verdict.closed else "bold red"
    console.print(headline(report), style=style, highlight=False, soft_wrap=True)
    for finding in findings(report.verdict):
        console.print(f"  {finding}", style="red", highlight=False, soft_wrap=True)
    console.print("\nWhat next", style="bold")
    for step, command in NEXT_STEPS:
        console.print(f"  {step:<28} [cyan]{command}[/]", highlight=False, soft_wrap=True)


def print_provider(console: Console, options: AloneOptions, own: DemoSecrets, base_url: str) -> None:
    """All that is needed to read the provider with one's own daemon. Its secrets are worth nothing elsewhere."""
    target = options.webhook_url or "nowhere; say where with --webhook-url"
    for name, text in (("provider", base_url), ("webhooks", f"to {target}")):
        console.print(f"{name:<9} {text}", markup=False, highlight=False, soft_wrap=True)
    exports = f"export DEMO_API_KEY={own.api_key}\nexport DEMO_WEBHOOK_SECRET={own.webhook}\n"
    config = try_it_config(base_url)
    text = f"\n# in the shell of your daemon\n{exports}\n# in its gapless.toml\n{config}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_told(console: Console, told: Told) -> None:
    """How the provider stands, in one line."""
    text = f"{told.elapsed_s:7.1f}s  events {told.events}  webhooks arrived {told.arrived}  requests {told.requests}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
