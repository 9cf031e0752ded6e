"""`gapless log`: reads and verifies the audit log."""

import asyncio
from datetime import datetime
from pathlib import Path

import click

from gapless.bootstrap.audit_key import open_audit_key, read_audit_key
from gapless.cli import output
from gapless.cli.access import open_reader, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.param_types import TIME
from gapless.domain import from_us, to_us
from gapless.ledger import audit_log
from gapless.ledger.audit_log import AuditKey
from gapless.ledger.audit_proof import LogProof, verify
from gapless.settings import Settings

SHOWN = 20


@click.group(invoke_without_command=True)
@click.option("--since", type=TIME, help="Only what was done since then: 30d, 2026-01-31, … Default: everything.")
@click.option("--actor", help="Only what this user or token has done.")
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_context
def log(context: click.Context, *, since: datetime | None, actor: str | None, json_: bool) -> None:
    """Show the audit log: who did what, and verify it.

    gapless log --since 7d
    """
    if context.invoked_subcommand is not None:
        return
    invocation: Invocation = context.obj
    with failing_clearly(debug=invocation.debug):
        settings, after, since_us = invocation.settings(), 0, 0 if since is None else to_us(since)
        rows: list[dict[str, object]] = []
        while found := read_ledger(settings, audit_log.rows, since_us=since_us, actor=actor, after_id=after):
            rows += [{**row, "at": from_us(row["at_us"])} for row in found]
            after = found[-1]["id"]
        if json_:
            output.as_lines({name: row[name] for name in row if name != "at_us"} for row in rows)
            return
        columns = ("row", "at", "actor", "role", "action", "subject", "reason", "result")
        names = ("number", "at", "actor", "role", "action", "subject", "reason", "detail")
        cells = (tuple("-" if row[name] is None else _shown(row[name]) for name in names) for row in rows)
        output.table(columns, cells, empty="nothing was done")


@log.command("verify")
@click.option(
    "--key-file",
    "key_files",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="A key that was used before; repeat it.",
)
@click.option("--noted", help="NUMBER:DIGEST of a row as it was printed before: it must still be there.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def verify_(invocation: Invocation, *, key_files: tuple[Path, ...], noted: str | None, json_: bool) -> None:
    """Verify the chain of the audit log. Exit 1 if a row was changed, removed or inserted.

    The last line names the newest row. Note it elsewhere, and give it as --noted the next time: then it is found, too,
    if newest rows were removed by somebody with an older copy of the ledger.

    gapless log verify
    """
    expected = _read_noted(noted)
    with failing_clearly(debug=invocation.debug):
        key, found = asyncio.run(_verify(invocation.settings(), key_files, expected))
        if json_:
            output.as_json({**_as_values(found), "has_key": key.is_secret})
        else:
            _show(found, has_key=key.is_secret)
        raise SystemExit(Exit.NEGATIVE if found.findings else Exit.OK)


async def _verify(
    settings: Settings, key_files: tuple[Path, ...], noted: tuple[int, str] | None
) -> tuple[AuditKey, LogProof]:
    async with open_reader(settings) as store:
        key = open_audit_key(settings, store, makes=False)
        return key, await store.read(verify, [key, *map(read_audit_key, key_files)], noted)


def _read_noted(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, digest = text.partition(":")
    if not number.isdecimal() or not digest:
        raise click.BadParameter("wanted NUMBER:DIGEST, as `gapless log verify` prints it", param_hint="--noted")
    return int(number), digest


def _shown(value: object) -> object:
    """Return a text with its control characters written out, so that none reaches the terminal."""
    return value if not isinstance(value, str) or value.isprintable() else value.encode("unicode_escape").decode()


def _show(found: LogProof, *, has_key: bool) -> None:
    for each in found.findings[:SHOWN]:
        click.echo(_shown(each))
    if len(found.findings) > SHOWN:
        click.echo(f"and {len(found.findings) - SHOWN} more")
    if not has_key:
        click.echo("the chain has no key, so whoever can write to the database can forge it: set store.audit_key")
    before = f", {found.pruned} pruned" if found.pruned else ""
    before += f", {found.unchained} from before there was a chain" if found.unchained else ""
    verdict = "is not as it was written" if found.findings else "is as it was written"
    click.echo(f"the audit log {verdict}: {found.rows} rows{before}")
    click.echo(f"newest row: {found.head.number}:{found.head.digest}")


def _as_values(found: LogProof) -> dict[str, object]:
    return {
        "rows": found.rows,
        "pruned": found.pruned,
        "unchained": found.unchained,
        "findings": found.findings,
        "head": f"{found.head.number}:{found.head.digest}",
    }
