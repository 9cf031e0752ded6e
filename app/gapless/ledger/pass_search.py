"""Passes for people, the newest first, with what they cost."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from gapless.ledger import newest
from gapless.ledger.newest import NewestPage
from gapless.ledger.tables import PASS, SLICE, SOURCE, STREAM


@dataclass(frozen=True, slots=True, kw_only=True)
class PassEntry:
    """One pass. Times are microseconds; `finished_us` and `outcome` are None while it goes on."""

    id: int
    source: str
    stream: str
    kind: str
    start_us: int
    end_us: int
    state: str
    outcome: str | None
    started_us: int
    finished_us: int | None
    listed: int
    found: int
    missed: int
    requests: int
    attempts: int
    next_attempt_us: int
    last_error: str | None
    slices: int
    slices_done: int


def page(
    connection: Connection,
    *,
    sources: Collection[str] | None = None,
    outcome: str | None = None,
    open_only: bool = False,
    found_only: bool = False,
    after: tuple[int, ...] | None = None,
    limit: int,
) -> NewestPage[PassEntry]:
    """Return passes, the newest first: of these sources, with that outcome, under way, or that found something."""
    where: list[ColumnElement[bool]] = []
    if sources is not None:
        where.append(PASS.c.source_id.in_(select(SOURCE.c.id).where(SOURCE.c.name.in_(sources))))
    if outcome is not None:
        where.append(PASS.c.outcome == outcome)
    if open_only:
        where.append(PASS.c.state.in_(("running", "failed")))
    if found_only:
        where.append(PASS.c.found > 0)
    found = newest.ids(connection, PASS.c.id, where, after=after, limit=limit)
    return NewestPage(rows=_entries(connection, list(found.rows)), after=found.after, is_full=found.is_full)


def open_passes(connection: Connection, sources: Collection[str] | None, limit: int) -> list[PassEntry]:
    """Return the passes that are under way, or failed on demand and wait for a person; the newest first."""
    mine = select(SOURCE.c.id) if sources is None else select(SOURCE.c.id).where(SOURCE.c.name.in_(sources))
    ids = list(connection.execute(mine).scalars())
    found: list[int] = []
    for state in ("running", "failed"):  # each has a partial index
        query = select(PASS.c.id).where(PASS.c.source_id.in_(ids), PASS.c.state == literal_column(f"'{state}'"))
        found += connection.execute(query.order_by(PASS.c.id.desc()).limit(limit)).scalars()
    return _entries(connection, sorted(found, reverse=True)[:limit])


def entry(connection: Connection, pass_id: int) -> PassEntry | None:
    """Return one pass; None: there is none of that id, or it was pruned."""
    found = _entries(connection, [pass_id])
    return found[0] if found else None


def _entries(connection: Connection, ids: list[int]) -> list[PassEntry]:
    done = func.count().filter(SLICE.c.state == "done")
    parts = select(SLICE.c.pass_id, func.count().label("all"), done.label("done"))
    each = parts.where(SLICE.c.pass_id.in_(ids)).group_by(SLICE.c.pass_id).subquery()
    names = ("source", "stream", "slices", "slices_done")
    query = (
        select(
            *(PASS.c[name] for name in PassEntry.__dataclass_fields__ if name not in names),
            SOURCE.c.name.label("source"),
            STREAM.c.name.label("stream"),
            func.coalesce(each.c.all, 0).label("slices"),
            func.coalesce(each.c.done, 0).label("slices_done"),
        )
        .join_from(PASS, STREAM, STREAM.c.id == PASS.c.stream_id)
        .join(SOURCE, SOURCE.c.id == PASS.c.source_id)
        .outerjoin(each, each.c.pass_id == PASS.c.id)
    )
    return [PassEntry(**row) for row in newest.rows_of(connection, query, PASS.c.id, ids)]
