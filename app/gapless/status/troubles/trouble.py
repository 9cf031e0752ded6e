"""The values of the judgement: what can be wrong, how bad it is, and the texts that several modules share."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

CLOCK_WRONG_FROM: Final = timedelta(minutes=1)
"""Difference of our clock from the provider's, or of a machine's from the database's, from which on it is a trouble."""
WAS_AHEAD: Final = "A clock was ahead when they were stored, or ours is behind now."
SET_CLOCK: Final = (
    "Synchronise the clock (NTP) of this machine and of the database, then see what `gapless check` says of the clocks."
)


class Severity(StrEnum):
    """How bad a trouble is, the worst first."""

    TROUBLE = "trouble"
    """A person is needed."""
    UNKNOWN = "unknown"
    """It could be known, but is not."""
    IN_HAND = "in_hand"
    """Not good yet, but it is repaired without a person."""
    GOOD = "good"

    @property
    def rank(self) -> int:
        """Return the place in the order; 0 is the worst."""
        return list(Severity).index(self)

    @property
    def is_well(self) -> bool:
        """Return True if nobody is needed: exit code 0."""
        return self in (Severity.GOOD, Severity.IN_HAND)


class TroubleKind(StrEnum):
    """The kinds of trouble: everything that can be wrong."""

    STORE_READ_ONLY = "store_read_only"
    STORE_LOCKED = "store_locked"
    STORE_REPLACED = "store_replaced"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_LOG_GROWS = "store_log_grows"
    STORE_CANNOT_SEAL = "store_cannot_seal"
    STORE_KEY_MISSING = "store_key_missing"
    NO_SOURCE = "no_source"
    SOURCE_UNKNOWN = "source_unknown"
    CONFIGURATION_OLDER = "configuration_older"
    OTHER_ACCOUNT = "other_account"
    SOURCE_PARKED = "source_parked"
    SOURCE_RETIRED = "source_retired"
    STREAM_PARKED = "stream_parked"
    LIST_SUSPECT = "list_suspect"
    LIST_CONTRADICTED = "list_contradicted"
    LIST_UNREADABLE = "list_unreadable"
    READ_FAILED = "read_failed"
    DEMAND_FAILED = "demand_failed"
    PROVIDER_WAITS = "provider_waits"
    NEVER_COMPARED = "never_compared"
    PROOF_STALLED = "proof_stalled"
    HISTORY_RUNS_OUT = "history_runs_out"
    HISTORY_TIGHT = "history_tight"
    GRANT_SHORT = "grant_short"
    GRANT_NEARLY_USED = "grant_nearly_used"
    READING_PUT_OFF = "reading_put_off"
    UNRECOVERABLE = "unrecoverable"
    EVENTS_LOST = "events_lost"
    ROWS_UNREADABLE = "rows_unreadable"
    EVENTS_MISSING = "events_missing"
    WEBHOOKS_LOST = "webhooks_lost"
    ENDPOINT_OFF = "endpoint_off"
    SILENT = "silent"
    QUARANTINE_EXPIRED = "quarantine_expired"
    CLOCK_WRONG = "clock_wrong"
    TIMES_AHEAD = "times_ahead"
    DEAD_LETTERS = "dead_letters"
    DELIVERIES_HELD = "deliveries_held"
    DELIVERIES_LATE = "deliveries_late"
    RECEIPTS_LATE = "receipts_late"
    OBJECTS_BLOCKED = "objects_blocked"
    DELIVERIES_PARKED = "deliveries_parked"
    DESTINATION_PAUSED = "destination_paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong, and where."""

    kind: TroubleKind
    severity: Severity
    text: str
    """What is wrong: a sentence."""
    next: str
    """What to do: a sentence, with the command to run."""
    source: str | None = None
    stream: str | None = None
    """The stream, or the first of several; None: the source's own, or the whole source."""
    destination: str | None = None
    since: datetime | None = None
    """Since when it may have been wrong; None if the ledger does not show it."""

    @property
    def where(self) -> str:
        """Return the source and stream, or the destination; "gapless" if it concerns all of it."""
        if self.source is not None:
            return f"{self.source} {self.stream}" if self.stream else self.source
        return self.destination or "gapless"


def counted(count: int, noun: str) -> str:
    """Return the number with its noun, such as "2 deliveries"."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else many}"
