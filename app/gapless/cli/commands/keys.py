"""`gapless keys`: the keys that seal payloads, what needs them, and their rotation."""

import asyncio
import time
from collections.abc import Sequence

import click
import msgspec

from gapless.bootstrap.keys import make_keyring
from gapless.cli import output
from gapless.cli.access import open_operations, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.domain import from_us
from gapless.ledger import Connection, sealed
from gapless.ledger.sealed import TABLES, KeyUse
from gapless.sealing import CLEAR, Keyring, KeyState
from gapless.settings import Settings

PROGRESS_EVERY_S = 2.0


@click.group()
def keys() -> None:
    """Show, check or rotate the keys that seal payloads.

    [encryption] has the keys: the first seals, all open.
    """


@keys.command("list")
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, json_: bool) -> None:
    """List the keys with the number of rows that need each; "clear" stands for none."""
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        ring = make_keyring(settings)
        uses, state = read_ledger(settings, _found)
        listed = [each for each in uses if _is_shown(each, ring)]
        listed += [_unused(key_id) for key_id in ring.keys if key_id not in {each.id for each in uses}]
        if json_:
            output.as_lines({"state": _role(each, ring, state), **msgspec.to_builtins(each)} for each in listed)
            return
        cells = (
            (each.id, _role(each, ring, state), from_us(each.first_us) if each.first_us else "-", *each.rows.values())
            for each in listed
        )
        output.table(("id", "state", "first used", "payloads", "quarantine", "unreadable rows"), cells, empty="none")


@keys.command()
@click.pass_obj
def check(invocation: Invocation) -> None:
    """Check that every key that a row needs is there, and opens it. Exit 1 if not.

    Says which configured keys no row needs any more: they can be removed.
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        ring = make_keyring(settings)
        uses, state = read_ledger(settings, _found)
        problems = _problems(uses, state, read_ledger(settings, _broken, ring=ring))
        for each in problems:
            click.echo(f"problem: {each}")
        for use in uses:
            if use.id in ring.keys and not any(use.rows.values()) and use.id != (ring.current and ring.current.id):
                click.echo(f"key {use.id}: no row needs it; its line can be removed")
        if problems:
            raise SystemExit(Exit.NEGATIVE)
        count = sum(sum(use.rows.values()) for use in uses if use.id != CLEAR)
        clear = sum(sum(use.rows.values()) for use in uses if use.id == CLEAR)
        click.echo(f"{count} rows are sealed, and their keys open them; {clear} are in the clear")


@keys.command()
@click.pass_obj
def rotate(invocation: Invocation) -> None:
    """Seal everything with the first key of [encryption], while the daemon goes on. Exit 1 if a row does not open.

    It can be stopped and started again. Afterwards `gapless keys check` says which keys can be removed.
    """
    with failing_clearly(debug=invocation.debug):
        count, broken = asyncio.run(_rotate(invocation.settings()))
        click.echo(
            f"{count} rows were sealed anew" + (f", {broken} did not open and stay as they are" if broken else "")
        )
        raise SystemExit(Exit.NEGATIVE if broken else Exit.OK)


async def _rotate(settings: Settings) -> tuple[int, int]:
    count = broken = 0
    said = time.monotonic()
    async with open_operations(settings) as operate:
        for step in (await operate("keys.rotate", {}))["steps"]:
            after: int | None = 0
            while after is not None:
                done = await operate("keys.rotate", {**step, "after": after})
                count, broken, after = count + done["count"], broken + done["broken"], done["after"]
                if time.monotonic() - said >= PROGRESS_EVERY_S:
                    said = time.monotonic()
                    click.echo(f"{count} rows so far; {step['table']} of key {step['key']}", err=True)
    return count, broken


def _found(connection: Connection) -> tuple[list[KeyUse], KeyState]:
    return sealed.uses(connection), sealed.look_with_own(connection)


def _broken(connection: Connection, ring: Keyring) -> str | None:
    return sealed.first_broken(connection, list(ring.keys))


def _unused(key_id: str) -> KeyUse:
    return KeyUse(id=key_id, first_us=None, rows=dict.fromkeys(TABLES, 0))


def _is_shown(use: KeyUse, ring: Keyring) -> bool:
    """Return False for keys of long ago: neither configured nor needed."""
    return use.id == CLEAR or use.id in ring.keys or any(use.rows.values())


def _role(use: KeyUse, ring: Keyring, state: KeyState) -> str:
    if use.id == CLEAR:
        return "-"
    if use.id in state.wrong:
        return "wrong"
    if use.id in state.missing:
        return "missing"
    return "current" if ring.current is not None and use.id == ring.current.id else "older"


def _problems(uses: Sequence[KeyUse], state: KeyState, broken: str | None) -> list[str]:
    rows = {use.id: sum(use.rows.values()) for use in uses}
    found = [f"{rows[key_id]} rows need the key {key_id!r}, which is not configured" for key_id in state.missing]
    found += [f"the key {key_id!r} is not the one that sealed {rows.get(key_id, 0)} rows" for key_id in state.wrong]
    return [*found, *([broken] if broken else [])]
