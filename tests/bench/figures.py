"""Medians with their spread, ratios paired within a round, and tables of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, the least and the most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}-{_short(self.most)})"


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    known = list(values)
    return Spread(median(known), min(known), max(known))


def paired(rounds: Sequence[dict[str, Any]], of: dict[str, Any], to: dict[str, Any], field: str) -> Spread | None:
    """The ratio of `field` between the measurements that match `of` and those that match `to`, round by round."""
    ratios = []
    for number in sorted({row["round"] for row in rounds}):
        above, below = _one(rounds, number, of, field), _one(rounds, number, to, field)
        if above is not None and below:
            ratios.append(above / below)
    return spread(ratios) if ratios else None


def matching(rounds: Sequence[dict[str, Any]], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements that have these values."""
    return [row for row in rounds if all(row.get(name) == value for name, value in wanted.items())]


def _one(rounds: Sequence[dict[str, Any]], number: int, wanted: dict[str, Any], field: str) -> float | None:
    found = matching(rounds, {"round": number, **wanted})
    return float(found[0][field]) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A goal and what became of it."""

    name: str
    wanted: float
    got: Spread | None
    at_most: bool = False

    @property
    def is_met(self) -> bool | None:
        """By the median; None: it was not measured."""
        if self.got is None:
            return None
        return self.got.median <= self.wanted if self.at_most else self.got.median >= self.wanted

    def row(self) -> list[str]:
        """A line of the table of bars."""
        sign = "<=" if self.at_most else ">="
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        return [self.name, f"{sign} {self.wanted:g}", str(self.got or "-"), verdict]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they need be: the first to the left, the others to the right."""
    cells = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
