"""Decide which rows that cannot be read are odd ones, to be set aside, and when there are too many of them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gapless.domain import to_us
from gapless.ledger.unreadable import key_of
from gapless_reconcilers.kit.contract import Order, Page, UnreadableRow
from gapless_reconcilers.kit.errors import UnexpectedShape

MOST_NEW: Final = 10
"""Most rows that one pass sets aside. Those that are known already do not count."""
SMALL_PAGE: Final = 3
"""On a page of more rows than these, half of them is too many."""
MOST_OPEN: Final = 100
"""From so many open rows of a stream on, its list is not understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The time `[start_us, end_us)` that is read, and the order and the unit of the list's times."""

    order: Order
    unit_us: int
    start_us: int
    end_us: int

    def of(self, row: UnreadableRow) -> tuple[int, int] | None:
        """Return the shortest `[start, end)` in which `row` occurred; None: it lies outside the time that is read.

        Its readable neighbours say so, if the list is in order. Else it may have occurred at any time.
        """
        older, newer = self._neighbours(row)
        if self.start_us >= self.end_us:
            return None
        if (newer is not None and to_us(newer) < self.start_us) or (older is not None and to_us(older) >= self.end_us):
            return None
        start_us = self.start_us if older is None else max(self.start_us, to_us(older))
        end_us = self.end_us if newer is None else min(self.end_us, to_us(newer) + self.unit_us)
        return (start_us, end_us) if start_us < end_us else (self.start_us, self.end_us)

    def _neighbours(self, row: UnreadableRow) -> tuple[datetime | None, datetime | None]:
        """Return the times of the older and of the newer neighbour."""
        if self.order is Order.UNORDERED:
            return None, None
        return (row.before, row.after) if self.order is Order.OLDEST_FIRST else (row.after, row.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The rows to set aside, each with the time in which it occurred, or the error if they are too many."""

    rows: Sequence[tuple[UnreadableRow, tuple[int, int]]] = ()
    new: int = 0
    """Number of `rows` that are not open or dismissed already."""
    refusal: UnexpectedShape | None = None


def judge(page: Page, states: Mapping[str, str], times: Times, *, before: int) -> Judgement:
    """Judge the unreadable rows of `page`; `states` of those that are known, `before`: new ones of the same pass."""
    rows = len(page.events) + len(page.unreadable) if page.rows is None else page.rows
    counted = [row for row in page.unreadable if states.get(key_of(row.digest)) != "dismissed"]
    if rows > SMALL_PAGE and 2 * len(counted) >= rows:
        return Judgement(refusal=_too_many(f"{len(counted)} of {rows} that cannot be read", counted[0]))
    found = {row.digest: (row, when) for row in page.unreadable if (when := times.of(row)) is not None}
    new = [row for row, _ in found.values() if states.get(key_of(row.digest)) in (None, "resolved")]
    if new and before + len(new) > MOST_NEW:
        return Judgement(refusal=_too_many(f"more than {MOST_NEW} that cannot be read in one pass", new[0]))
    return Judgement(rows=tuple(found.values()), new=len(new))


def refuse_open(count: int) -> UnexpectedShape | None:
    """Return the error if `count` open rows of a stream are too many."""
    if count < MOST_OPEN:
        return None
    return UnexpectedShape(
        "rows", f"{count} that cannot be read", f"fewer than {MOST_OPEN}; see `gapless missing list`"
    )


def _too_many(got: str, example: UnreadableRow) -> UnexpectedShape:
    return UnexpectedShape("rows", f"{got} ({example.problem})", "rows that can be read")
