"""`gapless statement`: verify a signed report of `gapless audit`."""

from pathlib import Path

import click

from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.operations.signing import is_genuine, read_public_key, signature_path

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def statement() -> None:
    """Verify a signed report of an audit."""


@statement.command()
@click.argument("report", type=FILE)
@click.option("--public-key", type=FILE, required=True, help="The public key of who signed it, in PEM.")
@click.pass_obj
def verify(invocation: Invocation, *, report: Path, public_key: Path) -> None:
    """Verify a report with the signature beside it.

    Exit 0 if it is genuine, 1 if it is not, or if the report or the signature was changed.

    gapless statement verify november.html --public-key audit.pub.pem
    """
    with failing_clearly(debug=invocation.debug):
        key = read_public_key(public_key)
        if not signature_path(report).is_file():
            click.echo(f"{report}: there is no signature {signature_path(report).name} beside it")
            raise SystemExit(Exit.NEGATIVE)
        genuine = is_genuine(report, key)
        click.echo(f"{report}: {'genuine' if genuine else 'NOT genuine: it was changed, or another key signed it'}")
        raise SystemExit(Exit.OK if genuine else Exit.NEGATIVE)
