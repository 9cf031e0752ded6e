"""The program `gapless`, also as `python -m gapless`.

Help and version are answered here: importing Click takes four times as long as starting Python does. All else is
Click's, and so is help in a narrow terminal. A test holds both answers to what Click says.
"""

import os
import sys

import gapless

HELP = """\
Usage: gapless [OPTIONS] COMMAND [ARGS]...

  No webhook event stays missed, and you can prove it.

  gapless demo --for 30s                     see it work
  gapless check && gapless serve             run it
  gapless audit SOURCE --against ids.csv     what your handler lost, without running it

  Exit codes: 0 yes, 1 no (something is missing, a check failed), 2 wrong call
  or configuration, 3 the store, the daemon or the provider could not be
  reached.

Options:
  --config FILE  Default: GAPLESS_CONFIG, else gapless.toml.
  --debug        Show tracebacks.
  --version      Show the version and exit.
  -h, --help     Show this message and exit.

Commands:
  audit       What your handler lost: the provider's own list against the...
  check       Look at configuration, store, keys, accounts,...
  db          The ledger's schema.
  dead        Dead letters: deliveries that ran out of attempts or were...
  demo        Watch a gap open and close: a provider that loses webhooks,...
  event       Events: what was recorded, by which road, and sending it...
  import      Record events as seen, owed to nobody, so that a later pass...
  providers   What each provider can do, and what it cannot prove; with...
  quarantine  Refused webhooks, kept for a while with the reason.
  serve       Run the daemon: receive webhooks, read the provider's list,...
  source      Sources: the accounts that events come from.
  status      What is wrong and what to do next; complete up to when,...
"""
WIDTH = 80


def main() -> None:
    """Run the command that the arguments of this process name."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        sys.stdout.write(f"gapless, version {gapless.__version__}\n")
    elif arguments in (["--help"], ["-h"]) and not _is_narrow():
        sys.stdout.write(HELP)
    else:
        from gapless.cli import main as run  # noqa: PLC0415 - it imports Click

        run(prog_name="gapless")


def _is_narrow() -> bool:
    """True if `HELP` may be wider than the terminal."""
    return "COLUMNS" in os.environ or (sys.stdout.isatty() and os.get_terminal_size().columns < WIDTH)


if __name__ == "__main__":
    main()
