"""Verifies the chain of the audit log: finds and names rows that were changed, removed or inserted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from gapless.ledger import audit_log
from gapless.ledger.audit_log import BROKEN, AuditKey, ChainEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """What a verification found. No findings: the log is as it was written."""

    rows: int
    head: ChainEnd
    pruned: int
    """Rows that were pruned."""
    unchained: int
    """Rows from before there was a chain. Nothing is proven of them."""
    findings: tuple[str, ...]
    """A sentence for each row, or run of rows, that is not as it was written."""


def verify(connection: Connection, keys: Sequence[AuditKey], noted: tuple[int, str] | None = None) -> LogProof:
    """Verify every row with the key that it names; `keys` begins with the present one.

    `noted`: the number and the digest of a row, as noted elsewhere: it must still be there, unless it was pruned.
    """
    by_id = {key.id: key for key in keys}
    pruned, earlier = audit_log.ends(connection)
    walk = _Walk(keys=by_id, number=pruned.number, previous=pruned.digest, noted=noted)
    findings = [*_of_seal("pruned", pruned, by_id), *walk.over(audit_log.chained(connection))]
    still_pruned, head = audit_log.ends(connection)
    if still_pruned.number != pruned.number:  # rows were pruned under the walk
        return verify(connection, keys, noted)
    findings += _of_end(walk, earlier, head, by_id)
    before, after = audit_log.outside_of_chain(connection)
    findings += [f"row with id {each} is in no chain: inserted, or written by an older release" for each in after]
    if noted is not None and pruned.number < noted[0] and not walk.met_noted:
        findings.append(f"row {noted[0]} is gone or is another one than was noted")
    return LogProof(rows=walk.rows, head=head, pruned=pruned.number, unchained=len(before), findings=tuple(findings))


@dataclass(slots=True, kw_only=True)
class _Walk:
    """A walk over the chain: the number and the digest of the last row."""

    keys: Mapping[str, AuditKey]
    number: int
    previous: str | None
    """None: unknown, because rows are missing before the next one."""
    noted: tuple[int, str] | None
    rows: int = 0
    met_noted: bool = False

    def over(self, rows: Iterator[dict[str, Any]]) -> Iterator[str]:
        """Yield what is wrong with each row."""
        for row in rows:
            self.rows += 1
            if row["number"] <= self.number:
                yield f"row {row['number']} was inserted: the rows up to {self.number} were pruned"
                continue
            if row["number"] != self.number + 1:
                yield _missing(self.number + 1, row["number"] - 1)
                self.previous = None
            yield from self._of_row(row)
            self.met_noted |= self.noted == (row["number"], row["digest"])
            self.number, self.previous = row["number"], row["digest"]

    def _of_row(self, row: dict[str, Any]) -> Iterator[str]:
        number, digest = row["number"], row["digest"] or ""
        key = self.keys.get(digest.partition(":")[0])
        if key is None:
            yield f"row {number} was written with another key ({digest.partition(':')[0] or 'none'}): name its file"
        elif self.previous is None:
            yield f"row {number} follows missing rows, so it cannot be verified"
        elif digest != key.digest_of(row, self.previous):
            yield f"row {number} ({row['action']} of {row['subject']}, by {row['actor']}) was changed or inserted"
        elif row["action"] == BROKEN:
            yield f"row {number} says that the end of the log was not as Gapless had sealed it: {row['detail']}"


def _of_end(walk: _Walk, earlier: ChainEnd, head: ChainEnd, keys: Mapping[str, AuditKey]) -> Iterator[str]:
    """Yield what is wrong with the end of the chain. It was `earlier` before the walk."""
    if earlier.number > walk.number:
        yield _missing(walk.number + 1, earlier.number)
    elif head.number < walk.number:
        lies = "lies" if walk.number == head.number + 1 else "lie"
        yield f"{_span(head.number + 1, walk.number)} {lies} beyond the end of the log, which is row {head.number}"
    elif head.number == walk.number and head.number and head.digest != walk.previous:
        yield f"row {head.number}, the last one, is another one than Gapless wrote"
    yield from _of_seal("head", head, keys)


def _of_seal(end: str, at: ChainEnd, keys: Mapping[str, AuditKey]) -> Iterator[str]:
    if not at.number:
        return
    key = keys.get(at.seal.partition(":")[0])
    if key is None or at.seal != key.seal_of(end, at.number, at.digest):
        what = "the last row" if end == "head" else "the last pruned row"
        yield f"the seal of {what}, {at.number}, is not by the key of this log"


def _missing(first: int, last: int) -> str:
    return f"{_span(first, last)} {'is' if first == last else 'are'} missing"


def _span(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}"
