"""`gapless providers`: the capabilities of each provider, also as the table in `docs/providers.md`."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gapless.cli import output
from gapless.cli.common import Invocation, failing_clearly
from gapless.cli.grants import limits_in_words
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


@click.command()
@click.argument(
    "files", nargs=-1, type=DeclarationFile(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]..."
)
@click.option("--markdown", is_flag=True, help="Print the table of docs/providers.md.")
@click.pass_obj
def providers(invocation: Invocation, files: Sequence[Path], *, markdown: bool) -> None:
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
