"""The program `gapless`: its options and its commands. Each command is imported when it is called."""

from importlib import import_module

import click

import gapless

COMMANDS = {
    "api": ("gapless.cli.commands.api:api", "Print the OpenAPI document of the HTTP API."),
    "approve": (
        "gapless.cli.commands.approve:approve",
        "Approve an operation on many events, or list those that wait.",
    ),
    "audit": (
        "gapless.cli.commands.audit:audit",
        "Compare the provider's list with the ids you have processed.",
    ),
    "check": (
        "gapless.cli.commands.check:check",
        "Check settings, store, providers, destinations and clocks.",
    ),
    "config": (
        "gapless.cli.commands.config:config",
        "Files to begin with, and an older configuration again.",
    ),
    "db": ("gapless.cli.commands.db:db", "Upgrade the ledger, or tell it that it was restored."),
    "dead": (
        "gapless.cli.commands.dead:dead",
        "List, requeue or discard dead letters and held deliveries.",
    ),
    "demo": (
        "gapless.cli.commands.demo:demo",
        "Watch the daemon recover webhooks that a fake provider loses.",
    ),
    "destination": (
        "gapless.cli.commands.destination:destination",
        "List, show, pause, resume or fill destinations.",
    ),
    "event": (
        "gapless.cli.commands.event:event",
        "List, show, follow and replay recorded events.",
    ),
    "import": (
        "gapless.cli.commands.import_:import_",
        "Record processed events, so that they are not sent again.",
    ),
    "job": (
        "gapless.cli.commands.job:job",
        "List, show, cancel or run jobs on many events.",
    ),
    "listen": (
        "gapless.cli.commands.listen:listen",
        "Forward events to a handler that you develop.",
    ),
    "keys": (
        "gapless.cli.commands.keys:keys",
        "Show, check or rotate the keys that seal payloads.",
    ),
    "log": (
        "gapless.cli.commands.log:log",
        "Show the audit log: who did what, and verify it.",
    ),
    "measure": (
        "gapless.cli.commands.measure:measure",
        "Show how late webhooks came, and how soon losses were found.",
    ),
    "missing": (
        "gapless.cli.commands.missing:missing",
        "List, show or dismiss what is known and not recorded.",
    ),
    "pass": ("gapless.cli.commands.pass_:pass_", "List passes, or cancel those on demand."),
    "providers": (
        "gapless.cli.commands.providers:providers",
        "Show what each provider can do, and what it cannot prove.",
    ),
    "quarantine": (
        "gapless.cli.commands.quarantine:quarantine",
        "List or release refused webhooks.",
    ),
    "serve": (
        "gapless.cli.commands.serve:serve",
        "Run the daemon: receive, reconcile, deliver, show the status.",
    ),
    "source": (
        "gapless.cli.commands.source:source",
        "List, show, read, rename or repair sources.",
    ),
    "statement": (
        "gapless.cli.commands.statement:statement",
        "Verify a signed report of an audit.",
    ),
    "status": (
        "gapless.cli.commands.status:status",
        "Show what is wrong, what to do next, and what is proven.",
    ),
    "token": (
        "gapless.cli.commands.token:token",
        "Make, list or revoke tokens of the private listener.",
    ),
}
"""{command: (`module:attribute` that defines it, first sentence of its help)}"""


class LazyCommand(click.Command):
    """Placeholder for a command in help and completion: it has its name and its help, without its imports."""

    def __init__(self, name: str, target: str, help: str) -> None:  # noqa: A002 - click's word
        super().__init__(name, help=help)
        self._target = target

    def load(self) -> click.Command:
        """Import and return the command."""
        module, _, attribute = self._target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class LazyGroup(click.Group):
    """Group that imports only the command that is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the name and the command of the first of `args`, and the other arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest


@click.group(
    cls=LazyGroup,
    commands=[LazyCommand(name, target, text) for name, (target, text) in COMMANDS.items()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--config", type=click.Path(dir_okay=False), help="Default: GAPLESS_CONFIG, else gapless.toml.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(gapless.__version__, prog_name="gapless")
@click.pass_context
def main(context: click.Context, config: str | None, debug: bool) -> None:  # noqa: FBT001 - click calls it
    """No webhook event stays missed, and you can prove it.

    \b
    gapless demo --for 30s                     see it work
    gapless check && gapless serve             run it
    gapless audit SOURCE --against ids.csv     what your handler lost, without a daemon

    Exit codes: 0 yes, 1 no (something is missing, a check failed), 2 wrong call or configuration,
    3 the store, the daemon or the provider could not be reached.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from gapless.cli.common import Invocation  # noqa: PLC0415 - `--help` and `--version` need no imports
    from gapless.cli.terminal import guard  # noqa: PLC0415

    guard()

    context.obj = Invocation(config=config, debug=debug)
