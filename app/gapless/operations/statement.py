"""The statement of an audit: what is wrong with each event, counts, exact sums, digests and the verdict. Pure.

An unknown is None or a sentence in `unknowns`, never 0. A statement is complete only if nothing is wrong and nothing is
unknown.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal, Inexact, Rounded
from enum import StrEnum
from typing import Any, Final, Protocol

from gapless.domain import from_us

EXACT: Final = Context(prec=120, traps=[Inexact, Rounded])
"""Sums are exact: an amount has at most 60 digits (`money`), and there are fewer than 10**50 of them."""
FORMAT: Final = "gapless-statement-1"


class Fault(StrEnum):
    """What can be wrong with an event."""

    MISSING = "missing"
    """The provider lists it, and the ledger lacks it."""
    UNLISTED = "unlisted"
    """The ledger has it, and the provider does not list it."""
    UNDELIVERED = "undelivered"
    """A destination is owed it and has not taken it."""
    UNCONFIRMED = "unconfirmed"
    """A destination has answered 2xx, and its receipt has not come."""
    ABSENT = "absent"
    """The team's own table lacks it."""


class Row(Protocol):
    """One event, as `ledger.worksheet.AuditedRow` has it."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def type(self) -> str: ...  # noqa: D102
    @property
    def occurred_us(self) -> int: ...  # noqa: D102
    @property
    def is_listed(self) -> bool: ...  # noqa: D102
    @property
    def is_recorded(self) -> bool: ...  # noqa: D102
    @property
    def is_provable(self) -> bool: ...  # noqa: D102
    @property
    def was_missed(self) -> bool: ...  # noqa: D102
    @property
    def undelivered(self) -> str: ...  # noqa: D102
    @property
    def unconfirmed(self) -> str: ...  # noqa: D102
    @property
    def in_table(self) -> bool: ...  # noqa: D102
    @property
    def amount(self) -> str | None: ...  # noqa: D102
    @property
    def currency(self) -> str | None: ...  # noqa: D102
    @property
    def unit(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was compared: without a list, a ledger or a table nothing is known of what they would show."""

    listed: bool = True
    ledger: bool = True
    table: bool = False
    start_us: int | None = None
    """When the source started: the ledger owes nothing that occurred before. None: no ledger was compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFault:
    """A fault of one event. `where`: the destinations, for those that concern them."""

    fault: Fault
    key: str
    type: str
    occurred_at: datetime
    where: str = ""
    amount: str | None = None
    currency: str | None = None
    unit: str | None = None


def faults_of(row: Row, compared: Compared) -> list[tuple[Fault, str]]:
    """Return what is wrong with an event, and where."""
    found = []
    if compared.listed and compared.ledger:
        if row.is_listed and not row.is_recorded and not is_before_start(row, compared):
            found.append((Fault.MISSING, ""))
        if row.is_recorded and row.is_provable and not row.is_listed:
            found.append((Fault.UNLISTED, ""))
    if row.undelivered:
        found.append((Fault.UNDELIVERED, row.undelivered))
    if row.unconfirmed:
        found.append((Fault.UNCONFIRMED, row.unconfirmed))
    if compared.table and not row.in_table:
        found.append((Fault.ABSENT, ""))
    return found


def is_before_start(row: Row, compared: Compared) -> bool:
    """Return True if the event occurred before the source started, so that the ledger need not have it."""
    return compared.start_us is not None and row.occurred_us < compared.start_us


class IdDigest:
    r"""The digest of a set of ids: SHA-256 of the ids in the order of their bytes, a NUL byte after each.

    Ids must come in that order, each once. By hand: `tr '\n' '\0' < ids.txt | LC_ALL=C sort -zu | sha256sum`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()
        self._last = b""

    def add(self, key: str) -> None:
        """Add the next id. Raises `ValueError` if it is out of order."""
        encoded = key.encode()
        if self.count and encoded <= self._last:
            raise ValueError(f"id {key!r} is out of order")
        self.count += 1
        self._last = encoded
        self._hash.update(encoded + b"\0")

    @property
    def hex(self) -> str:
        """The digest of what was added, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(slots=True)
class Tally:
    """Events of one type and currency. `total` is the exact sum; None: they name no amount."""

    count: int = 0
    total: Decimal | None = None

    def add(self, amount: str | None) -> None:
        """Count an event and add its amount."""
        self.count += 1
        if amount is not None:
            self.total = EXACT.add(self.total or Decimal(0), Decimal(amount))


TallyKey = tuple[str, str | None, str | None]
"""Type, currency, unit."""
COLUMNS = ("listed", "recorded", *Fault)


@dataclass(slots=True, kw_only=True)
class Statement:
    """What an audit found. Contains keys, never payloads."""

    source: str
    start: datetime
    end: datetime
    made_at: datetime
    types: tuple[str, ...]
    types_origin: str
    account: str | None = None
    compared: Compared
    repeated: int = 0
    unreadable: int = 0
    strangers: int = 0
    """Count of the team's ids that are neither listed nor recorded in this window."""
    lost_times: list[Mapping[str, Any]] = field(default_factory=list)
    unknowns: list[str] = field(default_factory=list)
    """What cannot be known, a sentence each: with one, the statement is not complete."""
    limits: list[str] = field(default_factory=list)
    """What such a list can never prove, a sentence each."""
    recovered: int = 0
    before_start: int = 0
    unprovable: int = 0
    """Recorded events that the list does not show and need not show."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    sums: dict[TallyKey, dict[str, Tally]] = field(default_factory=dict)
    listed_ids: IdDigest = field(default_factory=IdDigest)
    recorded_ids: IdDigest = field(default_factory=IdDigest)
    table_ids: IdDigest = field(default_factory=IdDigest)

    def add(self, row: Row) -> list[FoundFault]:
        """Count an event and return its faults. Events come in the order of their keys' bytes."""
        faults = faults_of(row, self.compared)
        for column, holds, ids in (
            ("listed", row.is_listed, self.listed_ids),
            ("recorded", row.is_recorded, self.recorded_ids),
            (None, row.in_table, self.table_ids),
        ):
            if holds:
                ids.add(row.key)
                if column:
                    self._count(row, column)
        for fault, _ in faults:
            self._count(row, fault)
        self.recovered += row.was_missed and row.is_recorded
        self.before_start += row.is_listed and not row.is_recorded and is_before_start(row, self.compared)
        self.unprovable += row.is_recorded and not row.is_listed and not row.is_provable
        return [
            FoundFault(
                fault=fault,
                key=row.key,
                type=row.type,
                occurred_at=from_us(row.occurred_us),
                where=where,
                amount=row.amount,
                currency=row.currency,
                unit=row.unit,
            )
            for fault, where in faults
        ]

    def _count(self, row: Row, column: str) -> None:
        self.counts[column] += 1
        tallies = self.sums.setdefault((row.type, row.currency, row.unit), {})
        tallies.setdefault(column, Tally()).add(row.amount)

    def conclude(self) -> None:
        """Say what the counts leave unknown. To be called once, after the last event."""
        if not self.compared.listed:
            self.unknowns.append("no list was read: nobody knows what is missing or unlisted")
        if not self.compared.ledger:
            self.unknowns.append("no ledger was compared: nobody knows what was recorded, delivered or confirmed")
        if self.unreadable:
            self.unknowns.append(
                f"{self.unreadable} rows of the list cannot be read: they may be events that are missing"
            )
        if self.before_start:
            self.unknowns.append(
                f"{self.before_start} listed events occurred before the source started: they were never owed"
            )
        if self.unprovable and not self.limits:
            self.unknowns.append(f"{self.unprovable} recorded events are of kinds that the list does not show")

    @property
    def is_complete(self) -> bool:
        """True if nothing is wrong, nothing is unrecoverable, and nothing is unknown."""
        return not (self.unknowns or self.lost_times or any(self.counts[fault] for fault in Fault))

    def count(self, column: str) -> int | None:
        """Return how many events have the fault, or are listed or recorded; None: unknown."""
        return self.counts[column] if self._is_known(column) else None

    def _is_known(self, column: str) -> bool:
        has_list, has_ledger = self.compared.listed, self.compared.ledger
        match column:
            case "listed":
                return has_list
            case Fault.MISSING | Fault.UNLISTED:
                return has_list and has_ledger
            case Fault.ABSENT:
                return self.compared.table and (has_list or has_ledger)
            case _:
                return has_ledger

    def sum_rows(self) -> list[dict[str, Any]]:
        """Return a row for each type and currency: count and sum of what is listed, recorded, and has each fault.

        Sums are texts, so that no reader rounds them. None is unknown; a sum is also None where no amount is named.
        """
        return [
            {
                "type": type_,
                "currency": currency,
                "unit": unit,
                **{column: self._cell(tallies, column, currency) for column in COLUMNS},
            }
            for (type_, currency, unit), tallies in sorted(
                self.sums.items(), key=lambda item: tuple(each or "" for each in item[0])
            )
        ]

    def _cell(self, tallies: Mapping[str, Tally], column: str, currency: str | None) -> dict[str, Any] | None:
        if not self._is_known(column):
            return None
        tally = tallies.get(column, Tally())
        total = tally.total if tally.count else Decimal(0)
        return {"count": tally.count, "sum": None if currency is None or total is None else format(total, "f")}

    def digests(self) -> dict[str, dict[str, Any] | None]:
        """Return count and digest of each set of ids; None: it is unknown."""
        sets = (
            ("listed", self.compared.listed, self.listed_ids),
            ("recorded", self.compared.ledger, self.recorded_ids),
            ("table", self.compared.table, self.table_ids),
        )
        return {name: {"count": ids.count, "sha256": ids.hex} if known else None for name, known, ids in sets}

    def as_values(self, faults: Iterable[FoundFault], *, left_out: int = 0) -> dict[str, Any]:
        """Return the statement for programs. `left_out`: faults that are counted and not in `faults`."""
        return {
            "format": FORMAT,
            "complete": self.is_complete,
            "source": self.source,
            "account": self.account,
            "start": self.start,
            "end": self.end,
            "made_at": self.made_at,
            "types": self.types,
            "types_origin": self.types_origin,
            "counts": {column: self.count(column) for column in COLUMNS}
            | {
                "unrecoverable": len(self.lost_times) if self.compared.ledger else None,
                "recovered": self.recovered if self.compared.ledger else None,
                "listed_twice": self.repeated if self.compared.listed else None,
                "unreadable": self.unreadable if self.compared.listed else None,
                "before_start": self.before_start if self.compared.listed and self.compared.ledger else None,
                "not_of_this_window": self.strangers if self.compared.table else None,
            },
            "unknown": self.unknowns,
            "limits": self.limits,
            "unrecoverable": self.lost_times,
            "digests": self.digests(),
            "sums": self.sum_rows(),
            "faults": list(faults),
            "faults_left_out": left_out,
        }
