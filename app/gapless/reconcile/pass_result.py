"""What a pass has read and found so far, and how it ended."""

from dataclasses import dataclass, field
from datetime import datetime

from gapless_reconcilers.kit.errors import ProviderError


@dataclass(slots=True, kw_only=True)
class PassResult:
    """The counts and the outcome of a pass, for its row, its log line and the pace."""

    listed: int = 0
    found: int = 0
    found_before: int = 0
    """What earlier runs of the same pass have found."""
    expected: int = 0
    """Number of expected events among the found: missed, or found before that could be said."""
    missed: int = 0
    """Number of events that were judged missed: found just now, or by an earlier pass."""
    requests: int = 0
    set_aside: int = 0
    """Number of unreadable rows that were new."""
    oldest_found: datetime | None = None
    failures: list[ProviderError] = field(default_factory=list)
    young: set[str] = field(default_factory=set)
    """The keys of the young events that were listed."""
    suspect: bool = False
    contradicted: bool = False
    absent_anew: bool = False
    """The listing lacks events whose webhooks came, and which no listing lacked before."""
    complete: bool = False
    progressed: bool = False
    """True if a slice was read to its end, or goes on behind where it began."""

    @property
    def ended(self) -> bool:
        """Return True if the whole window was read, believed or not."""
        return self.complete or self.suspect

    @property
    def outcome(self) -> str:
        """Return `clean`, `found`, `contradicted`, `suspect_listing`, `unfinished`, or the failure in snake case."""
        if self.failures:
            return _snake(type(self.failures[0]).__name__)
        if self.suspect:
            return "suspect_listing"
        if not self.complete:
            return "unfinished"
        if self.contradicted:
            return "contradicted"
        return "found" if self.found or self.found_before else "clean"

    def count_found(self, occurred_at: datetime, *, expected: bool, awaited: bool) -> None:
        """Count an event that the ledger lacked; `awaited`: its webhook may still come, so it is not missed yet."""
        self.found += 1
        self.expected += expected
        self.missed += expected and not awaited
        oldest = self.oldest_found
        self.oldest_found = occurred_at if oldest is None else min(oldest, occurred_at)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
