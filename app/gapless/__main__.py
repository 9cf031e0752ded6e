"""The program `gapless`, also as `python -m gapless`.

This module prints help and version itself, because importing Click takes four times as long as starting Python. Click
does the rest, also help in a narrow terminal. A test compares both texts with the output of Click.
"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working folder: nothing in it is ours, and `-m` lets it go before the libraries

import gapless

HELP = """\
Usage: gapless [OPTIONS] COMMAND [ARGS]...

  No webhook event stays missed, and you can prove it.

  gapless demo --for 30s                     see it work
  gapless check && gapless serve             run it
  gapless audit SOURCE --against ids.csv     what your handler lost, without a daemon

  Exit codes: 0 yes, 1 no (something is missing, a check failed), 2 wrong call
  or configuration, 3 the store, the daemon or the provider could not be
  reached.

Options:
  --config FILE  Default: GAPLESS_CONFIG, else gapless.toml.
  --debug        Show tracebacks.
  --version      Show the version and exit.
  -h, --help     Show this message and exit.

Commands:
  api          Print the OpenAPI document of the HTTP API.
  approve      Approve an operation on many events, or list those that wait.
  audit        Compare the provider's list with the ids you have processed.
  check        Check settings, store, providers, destinations and clocks.
  config       Files to begin with, and an older configuration again.
  db           Upgrade the ledger, or tell it that it was restored.
  dead         List, requeue or discard dead letters and held deliveries.
  demo         Watch the daemon recover webhooks that a fake provider loses.
  destination  List, show, pause, resume or fill destinations.
  event        List, show, follow and replay recorded events.
  import       Record processed events, so that they are not sent again.
  job          List, show, cancel or run jobs on many events.
  keys         Show, check or rotate the keys that seal payloads.
  listen       Forward events to a handler that you develop.
  log          Show the audit log: who did what, and verify it.
  measure      Show how late webhooks came, and how soon losses were found.
  missing      List, show or dismiss what is known and not recorded.
  pass         List passes, or cancel those on demand.
  providers    Show what each provider can do, and what it cannot prove.
  quarantine   List or release refused webhooks.
  serve        Run the daemon: receive, reconcile, deliver, show the status.
  source       List, show, read, rename or repair sources.
  statement    Verify a signed report of an audit.
  status       Show what is wrong, what to do next, and what is proven.
  token        Make, list or revoke tokens of the private listener.
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
    """Return True if `HELP` may be wider than the terminal."""
    return "COLUMNS" in os.environ or (sys.stdout.isatty() and os.get_terminal_size().columns < WIDTH)


if __name__ == "__main__":
    main()
