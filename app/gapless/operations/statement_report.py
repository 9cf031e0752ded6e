"""Writes a statement as text, JSON, CSV or HTML. Pure: a statement in, text out.

The HTML report needs nothing from anywhere, runs nothing, and has all foreign text escaped.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any, Final

import msgspec

from gapless.operations.statement import COLUMNS, Fault, FoundFault, Statement
from gapless.text import format_time, format_value, printable

FAULT_COLUMNS: Final = ("fault", "key", "type", "occurred_at", "where", "amount", "currency", "unit")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so would be computed by a spreadsheet."""
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #8885; padding: .25rem .75rem; text-align: left; vertical-align: top }
td.n { text-align: right } code { overflow-wrap: anywhere } .yes { color: #1a7f37 } .no { color: #c4320a }
div { overflow-x: auto }
"""


def verdict(statement: Statement) -> str:
    """Return the verdict in one sentence."""
    if statement.is_complete:
        return "COMPLETE: nothing is missing, and nothing is unknown"
    found = [f"{statement.counts[fault]} {fault}" for fault in Fault if statement.count(fault)]
    if statement.lost_times:
        found.append(f"{len(statement.lost_times)} unrecoverable times")
    if statement.unknowns:
        found.append("some of it is unknown")
    return f"NOT COMPLETE: {', '.join(found)}"


def text_lines(statement: Statement, faults: Sequence[FoundFault], left_out: int = 0) -> Iterator[str]:
    """Yield the statement for people, a line each."""
    yield f"source   {statement.source} ({statement.account or 'account unknown'})"
    yield f"time     {format_time(statement.start)} to {format_time(statement.end)}"
    yield f"types    {', '.join(statement.types)} ({statement.types_origin})"
    yield f"verdict  {verdict(statement)}"
    yield ""
    for name, value in _counts(statement):
        yield f"{name:<19}{format_value(value)}"
    for title, sentences in (("unknown", statement.unknowns), ("limit", statement.limits)):
        yield from (f"{title}: {each}" for each in sentences)
    for each in statement.lost_times:
        yield f"unrecoverable: {format_time(each['start'])} to {format_time(each['end'])}, {each['reason']}"
    yield ""
    for row in statement.sum_rows():
        name = f"{row['type']} {row['currency'] or 'no amount'}"
        yield f"{name}: {', '.join(_cells(row))}"
    yield ""
    for found in faults:
        yield f"{found.fault:<12} {format_time(found.occurred_at)} {found.type} {found.key} {found.where}".rstrip()
    if left_out:
        yield f"… and {left_out} more faults; a report that ends in .csv names them all"
    for name, digest in statement.digests().items():
        yield f"ids {name}: " + ("unknown" if digest is None else f"{digest['count']}, sha256 {digest['sha256']}")


def _counts(statement: Statement) -> list[tuple[str, int | None]]:
    values = statement.as_values(())["counts"]
    return [(name.replace("_", " "), value) for name, value in values.items()]


def _cells(row: dict[str, Any]) -> Iterator[str]:
    for column in COLUMNS:
        cell = row[column]
        if cell is None:
            yield f"{column} unknown"
        elif cell["count"] or column == "listed":
            unit = "" if row["unit"] is None else f" {row['currency']} ({row['unit']} units)"
            yield f"{column} {cell['count']}" + ("" if cell["sum"] is None else f" = {cell['sum']}{unit}")


def as_json(statement: Statement, faults: Sequence[FoundFault], left_out: int = 0) -> str:
    """Return the statement as JSON."""
    values = msgspec.json.encode(statement.as_values(faults, left_out=left_out))
    return msgspec.json.format(values, indent=2).decode() + "\n"


def csv_row(cells: Iterable[object]) -> str:
    """Return a line of CSV. Text that a spreadsheet would compute gets an apostrophe before it."""
    line = io.StringIO()
    csv.writer(line).writerow([_harmless(cell) for cell in cells])
    return line.getvalue()


def _harmless(cell: object) -> str:
    text = "" if cell is None else printable(str(cell), one_line=True)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdecimal() and text.count("-") <= 1


def fault_cells(found: FoundFault) -> list[object]:
    """Return the cells of `FAULT_COLUMNS`."""
    values = {name: getattr(found, name) for name in FAULT_COLUMNS}
    return list((values | {"occurred_at": found.occurred_at.isoformat(), "fault": found.fault.value}).values())


def sums_csv(statement: Statement) -> Iterator[str]:
    """Yield the counts and sums by type and currency as lines of CSV; an empty cell is unknown or names no amount."""
    yield csv_row(
        ("type", "currency", "unit", *(f"{column}_{part}" for column in COLUMNS for part in ("count", "sum")))
    )
    for row in statement.sum_rows():
        cells = [(row[column] or {}).get(part) for column in COLUMNS for part in ("count", "sum")]
        yield csv_row((row["type"], row["currency"], row["unit"], *cells))


def html_parts(statement: Statement, faults: Sequence[FoundFault], left_out: int = 0) -> Iterator[str]:
    """Yield the statement as an HTML document of its own."""
    title = f"Audit of {_html(statement.source)}"
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
    yield f"<h1>{title}</h1>"
    yield f'<p class="{"yes" if statement.is_complete else "no"}"><strong>{_html(verdict(statement))}</strong></p>'
    yield _table(
        ("", ""),
        [
            ("account", statement.account),
            ("from", statement.start),
            ("until, not included", statement.end),
            ("made at", statement.made_at),
            ("types", f"{', '.join(statement.types)} ({statement.types_origin})"),
        ],
    )
    yield "<h2>Counts</h2>" + _table(("", "events"), _counts(statement))
    if statement.unknowns or statement.limits:
        yield "<h2>What is unknown</h2><ul>"
        yield "".join(f"<li>{_html(each)}</li>" for each in (*statement.unknowns, *statement.limits)) + "</ul>"
    if statement.lost_times:
        lost = [[each[name] for name in ("start", "end", "reason", "acknowledged_by")] for each in statement.lost_times]
        yield "<h2>Unrecoverable times</h2>"
        yield _table(
            ("from", "until", "reason", "acknowledged by"), [[*each[:3], each[3] or "nobody"] for each in lost]
        )
    yield "<h2>Counts and sums</h2>" + _sums_table(statement)
    yield "<h2>What is wrong</h2>" + _table(FAULT_COLUMNS, [fault_cells(each) for each in faults], unknown="")
    if left_out:
        yield f"<p>… and {left_out} more; the report in CSV names them all.</p>"
    yield "<h2>Sets of ids</h2>" + _digest_table(statement)
    yield (
        "<p>The digest is SHA-256 of the ids in the order of their bytes, each once, with a NUL byte after each: "
        "<code>tr '\\n' '\\0' &lt; ids.txt | LC_ALL=C sort -zu | sha256sum</code></p></body></html>\n"
    )


def _sums_table(statement: Statement) -> str:
    rows = [
        (
            row["type"],
            row["currency"] or "no amount",
            row["unit"] or "",
            *("unknown" if row[column] is None else _sum_text(row[column]) for column in COLUMNS),
        )
        for row in statement.sum_rows()
    ]
    return _table(("type", "currency", "unit", *COLUMNS), rows)


def _sum_text(cell: dict[str, Any]) -> str:
    return str(cell["count"]) if cell["sum"] is None else f"{cell['count']} = {cell['sum']}"


def _digest_table(statement: Statement) -> str:
    digests = statement.digests().items()
    rows = [(name, None, None) if each is None else (name, each["count"], each["sha256"]) for name, each in digests]
    return _table(("set", "ids", "sha256"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], unknown: str = "unknown") -> str:
    head = "".join(f"<th>{_html(each)}</th>" for each in columns)
    body = "".join(f"<tr>{''.join(_cell(each, unknown) for each in row)}</tr>" for row in rows)
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: object, unknown: str) -> str:
    kind = ' class="n"' if isinstance(value, int) else ""
    return f"<td{kind}>{_html(unknown if value is None else format_value(value))}</td>"


def _html(text: object) -> str:
    return escape(printable(str(text), one_line=True), quote=True)
