"""`gapless providers`: what each provider can do, also as the table in `docs/providers.md`; new declarations."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import click

from gapless.cli import output, samples, scaffold
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.grants import limits_in_words
from gapless.cli.output import Finding, FindingLevel, ok, warning
from gapless.errors import UserError
from gapless.settings import DECLARED, declared_file, declared_providers
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import (
    Capabilities,
    Coverage,
    Provider,
    Reading,
    ReadsSubscription,
    RegistersEndpoint,
    Remedy,
    RemoteEvent,
    Rendering,
)

COLUMNS = (
    "provider", "what its list proves", "history", "recovery", "delivered with the vendor's signature", "our endpoint",
    "what cannot be proven", "what the vendor grants", "checked against", "met a live vendor",
)  # fmt: skip
AS_DECLARED = "as declared"
NEVER_MET = "never"
PROVES = {
    Coverage.EVENT_LOG: "every event",
    Coverage.DELIVERY_LOG: "every delivery, as long as the precondition held",
    Coverage.RESOURCE_STATE: "the last state of each object, not each step",
    Coverage.NONE: "nothing: push only",
}
RECOVERS = {
    Remedy.LIST: "from the list",
    Remedy.DETAIL: "one request an event",
    Remedy.REDELIVERY: "asked to send it again",
    Remedy.NONE: "none",
}
RENDERS = {
    Rendering.EXACT: "exact",
    Rendering.EQUIVALENT: "equivalent: the shape of a listed event may differ",
    Rendering.PUSHED: "exact for what came by webhook; the states of a list have no webhook's shape",
    Rendering.IMPOSSIBLE: "impossible: only the vendor has the key",
}


class DeclarationFile(click.Path):
    """A file that declares sources, or a ready-made one of the package, such as `declared:paddle`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the file."""
        if not str(value).startswith(DECLARED):
            return super().convert(value, param, ctx)
        try:
            return declared_file(str(value))
        except UserError as error:
            self.fail(str(error), param, ctx)


class WithShow(click.Group):
    """A group whose first argument may be a file: then it is the command `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `show` before arguments that name no command."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name; that of a file is `show`."""
        is_file = cmd_name.startswith(DECLARED) or cmd_name.endswith(".toml")
        return super().get_command(ctx, "show" if is_file else cmd_name)


@click.group(cls=WithShow)
def providers() -> None:
    """Show what each provider can do, and what it cannot prove.

    \b
    gapless providers [FILE]...                what each can do; declared:NAME is a ready-made file
    gapless providers new NAME                 a declaration to begin with, its fixtures and its test
    gapless providers try FILE --webhook sample.http --page page.json
    """  # noqa: D301 - click's mark for lines that stay as they are


@providers.command()
@click.argument(
    "files", nargs=-1, type=DeclarationFile(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]..."
)
@click.option("--markdown", is_flag=True, help="Print the table of docs/providers.md.")
@click.pass_obj
def show(invocation: Invocation, files: Sequence[Path], *, markdown: bool) -> None:
    """Show what each provider can do, and what it cannot prove. With FILE..., show each source in it.

    declared:NAME is a ready-made file of the package, such as declared:paddle.
    """
    with failing_clearly(debug=invocation.debug):
        if files:
            rows = [row(name, each) for file in files for name, each in declared_providers(file)]
        else:
            rows = [row(kind, registry.load(kind)) for kind in registry.kinds()]
        if markdown:
            click.echo("\n".join(as_markdown(rows)))
        else:
            output.table(COLUMNS[:6], [each[:6] for each in rows], empty="there is no provider")


@providers.command()
@click.argument("name")
@click.option("--push-only", is_flag=True, help="The vendor has no list.")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="The folder; default: here."
)
@click.pass_obj
def new(invocation: Invocation, name: str, *, push_only: bool, into: Path) -> None:
    """Write a declaration to begin with, its fixtures and its test. The test passes; change them piece by piece."""
    with failing_clearly(debug=invocation.debug):
        paths = scaffold.write(name, into, has_list=not push_only)
        for path in paths:
            click.echo(str(path))
        click.echo(f"next: put the vendor's facts there, and try them: gapless providers try {into / name}.toml")


@providers.command("try")
@click.argument("file", type=DeclarationFile(exists=True, dir_okay=False, path_type=Path))
@click.option("--webhook", type=click.File("rb"), help="A sample: headers, an empty line, the body as it was sent.")
@click.option(
    "--page", type=click.File("rb"), help="A sample of the list: its body, or the whole answer from HTTP/ on."
)
@click.pass_obj
def try_(invocation: Invocation, file: Path, *, webhook: BinaryIO | None, page: BinaryIO | None) -> None:
    """Show what samples become with a declaration, and what is missing. Nothing is asked or recorded.

    The signature is checked with the secrets in the environment variables that FILE names.
    """
    with failing_clearly(debug=invocation.debug):
        unset: list[str] = []
        bad = False
        for name, provider in declared_providers(file, os.environ, unset):
            click.echo(f"{name}: {row(name, provider)[1]}")
            for each in _tried(provider, webhook, page, unset):
                bad |= each.verdict is FindingLevel.PROBLEM
                click.echo(f"{each.verdict.value:8} {each.subject}: {each.text}")
        raise SystemExit(Exit.NEGATIVE if bad else Exit.OK)


def _tried(
    provider: Provider, webhook: BinaryIO | None, page: BinaryIO | None, unset: Sequence[str]
) -> Iterator[Finding]:
    now, pushed, listed = datetime.now(UTC), tuple[RemoteEvent, ...](), list[RemoteEvent]()
    if webhook is None:
        yield warning("webhook", "there is no sample; give one with --webhook")
    else:
        request = samples.read_http(webhook.read())
        yield from samples.of_webhook(provider, request, now, unset)
        pushed = samples.events_of(provider, request, now)
    if page is not None:
        for each in samples.of_page(provider, page.read()):
            if isinstance(each, Finding):
                yield each
            else:
                listed.append(each)
                yield ok("page", samples.describe(each))
    elif provider.capabilities.coverage is not Coverage.NONE:
        yield warning("page", "there is no sample of the list; give one with --page")
    if pushed and listed:
        yield from samples.compared(pushed, listed, exact_times=provider.capabilities.exact_times)


def row(name: str, provider: Provider | type[Provider]) -> tuple[str, ...]:
    """Return the row of one provider under `name`, in the order of `COLUMNS`."""
    capabilities: Capabilities = provider.capabilities
    proves = PROVES[capabilities.coverage]
    is_declared = isinstance(provider, type) and getattr(provider, "is_declared", False)
    if capabilities.reading is Reading.CONSUME:
        proves = f"{proves}, unless webhooks are set"
    return (
        name,
        f"{proves} (`{capabilities.coverage}`)",
        AS_DECLARED if is_declared else _history(capabilities),
        RECOVERS[capabilities.remedy] if capabilities.coverage is not Coverage.NONE else RECOVERS[Remedy.NONE],
        RENDERS[capabilities.rendering],
        _health(provider),
        capabilities.unproven.rstrip("."),
        AS_DECLARED if is_declared else limits_in_words(capabilities),
        AS_DECLARED if is_declared else str(capabilities.basis),
        AS_DECLARED if is_declared else capabilities.met or NEVER_MET,
    )


def as_markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of the table in `docs/providers.md`."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * len(COLUMNS)}"
    for kind, *cells in rows:
        yield f"| `{kind}` | {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _history(capabilities: Capabilities) -> str:
    if capabilities.coverage is Coverage.NONE:
        return "-"
    if capabilities.history is None:
        return "no limit"
    days = capabilities.history / timedelta(days=1)
    return f"{days:g} days" if days > 1 else f"{capabilities.history / timedelta(hours=1):g} hours"


def _health(provider: Provider | type[Provider]) -> str:
    """Return the operations on our endpoint. They are found by their methods, because no provider is built here."""
    abilities = {
        "checked": ReadsSubscription.read_subscription,
        "created, repaired": RegistersEndpoint.register_request,
    }
    return ", ".join(word for word, method in abilities.items() if hasattr(provider, method.__name__)) or "not checked"
