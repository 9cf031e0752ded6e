"""The program `gapless`: its options, and its commands, each imported when it is called."""

from importlib import import_module

import click

import gapless

COMMANDS = {
    "audit": (
        "gapless.cli.commands.audit:audit",
        "What your handler lost: the provider's own list against the ids that you have processed.",
    ),
    "check": (
        "gapless.cli.commands.check:check",
        "Look at configuration, store, keys, accounts, subscriptions, versions and clocks.",
    ),
    "db": ("gapless.cli.commands.db:db", "The ledger's schema."),
    "dead": (
        "gapless.cli.commands.dead:dead",
        "Dead letters: deliveries that ran out of attempts or were refused for good; and held ones.",
    ),
    "demo": (
        "gapless.cli.commands.demo:demo",
        "Watch a gap open and close: a provider that loses webhooks, the daemon, and a consumer.",
    ),
    "event": (
        "gapless.cli.commands.event:event",
        "Events: what was recorded, by which road, and sending it again.",
    ),
    "import": (
        "gapless.cli.commands.import_:import_",
        "Record events as seen, owed to nobody, so that a later pass or webhook does not deliver them again.",
    ),
    "providers": (
        "gapless.cli.commands.providers:providers",
        "What each provider can do, and what it cannot prove; with FILE..., each source that is declared there.",
    ),
    "quarantine": (
        "gapless.cli.commands.quarantine:quarantine",
        "Refused webhooks, kept for a while with the reason.",
    ),
    "serve": (
        "gapless.cli.commands.serve:serve",
        "Run the daemon: receive webhooks, read the provider's list, deliver, show how it stands.",
    ),
    "source": ("gapless.cli.commands.source:source", "Sources: the accounts that events come from."),
    "status": (
        "gapless.cli.commands.status:status",
        "What is wrong and what to do next; complete up to when, what was missed, what is still owed.",
    ),
}
"""Of each command where it is, as `module:attribute`, and the first sentence of its help."""


class LazyCommand(click.Command):
    """Stands for a command in help and completion, which need its name and its help but not its imports."""

    def __init__(self, name: str, target: str, help: str) -> None:  # noqa: A002 - click's word
        super().__init__(name, help=help)
        self._target = target

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self._target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class LazyGroup(click.Group):
    """Loads the one command that is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first of `args` names, with its name and the other arguments."""
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
    gapless audit SOURCE --against ids.csv     what your handler lost, without running it

    Exit codes: 0 yes, 1 no (something is missing, a check failed), 2 wrong call or configuration,
    3 the store, the daemon or the provider could not be reached.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from gapless.cli.common import Invocation  # noqa: PLC0415 - `--help` and `--version` come first, and read nothing

    context.obj = Invocation(config=config, debug=debug)
