"""Reads rows newest first, a page at a time, with work that is bounded whatever is asked.

A filter that no index serves could make a query read a whole table. So a page looks at no more than `LOOKED_AT` rows in
the order of an index, and says where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, select

LOOKED_AT: Final = 10_000
"""Most rows of the index that one page looks at."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestPage(Generic[T]):
    """Some rows, the newest first. `after`: where the next page goes on; None: there is none."""

    rows: Sequence[T]
    after: tuple[int, ...] | None
    is_full: bool = True
    """False: fewer rows than wanted were found, and there may be more further back."""


def ids(
    connection: Connection,
    key: Column[int],
    where: Sequence[ColumnElement[bool]],
    *,
    after: tuple[int, ...] | None,
    limit: int,
    looked_at: int = LOOKED_AT,
) -> NewestPage[int]:
    """Return the greatest values of the primary key `key` below `after` whose rows fit `where`, in falling order."""
    below = [] if after is None else [key < after[0]]
    if not where:
        found = list(connection.execute(select(key).where(*below).order_by(key.desc()).limit(limit + 1)).scalars())
        return NewestPage(rows=found[:limit], after=(found[limit - 1],) if len(found) > limit else None)
    some = select(key.label("id")).where(*below).order_by(key.desc()).limit(looked_at).subquery()
    query = select(key).join(some, some.c.id == key).where(*where).order_by(key.desc()).limit(limit + 1)
    found = list(connection.execute(query).scalars())
    if len(found) > limit:
        return NewestPage(rows=found[:limit], after=(found[limit - 1],))
    stopped = connection.execute(select(some.c.id).order_by(some.c.id.desc()).offset(looked_at - 1).limit(1)).scalar()
    return NewestPage(rows=found, after=None if stopped is None else (stopped,), is_full=stopped is None)


def rows_of(connection: Connection, query: Any, key: Column[int], found: Sequence[int]) -> list[Any]:
    """Return the rows of `query` with these keys, as mappings, in the order of `found`."""
    by_key = {row[key.name]: row for row in connection.execute(query.where(key.in_(found))).mappings()}
    return [by_key[each] for each in found if each in by_key]
