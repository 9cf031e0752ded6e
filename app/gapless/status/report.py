"""The values of the report: every source and destination at one moment. None always means unknown, never 0."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from gapless.domain import LEAST_HEADROOM, Cause, Mode, Via, from_us
from gapless.ledger.absences import NO_ABSENCES, AbsenceCounts
from gapless.ledger.budgets import GrantUse
from gapless.ledger.configurations import OlderProcess
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.destinations import Pause
from gapless.ledger.learned import Learned, PlanSummary
from gapless.ledger.leases import ClockOffset
from gapless.ledger.ordering import Blocked
from gapless.ledger.passes import FailingPass
from gapless.ledger.snapshot import UnrecoverableEntry
from gapless_reconcilers.kit.contract import Coverage

OWED: tuple[DeliveryState, ...] = (
    DeliveryState.PENDING,
    DeliveryState.WAITING,
    DeliveryState.HELD,
    DeliveryState.PARKED,
    DeliveryState.DEAD,
)
"""The states of deliveries that are not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How much was missed in one window; `rate` is None where nothing was expected."""

    missed: int
    expected: int

    @property
    def rate(self) -> float | None:
        """Return missed per expected."""
        return self.missed / self.expected if self.expected else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Missed events since the source's start. Only a source with both webhooks and a list has them."""

    expected: int
    missed: Mapping[Cause, int]
    recovered: int
    late: int
    unlisted: int

    @property
    def missed_in_all(self) -> int:
        """Return the missed events of all causes."""
        return sum(self.missed.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The times up to which, and at which, a source or one stream of it agreed with the provider's list."""

    watermark: datetime | None
    complete_up_to: datetime | None
    """Every event before it that the list showed at `checked_at` is recorded."""
    checked_at: datetime | None
    """When the list was last read over the whole lookback. Later readings began nearer to the watermark."""
    last_complete_pass: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """One stream; if it is not read, with the reason."""

    name: str
    complete_from: datetime
    proof: Proof
    last_outcome: str | None
    last_error: str | None = None
    parked_reason: str | None
    absences: AbsenceCounts = NO_ABSENCES
    """Webhook events that its list lacks, where they are more than the source may lack; else none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReport:
    """The figures that come from comparing a source with its list. A source without a list has none."""

    proof: Proof
    history: timedelta | None
    """The time for which the provider's list shows events; None: without limit."""
    history_headroom: timedelta | None
    behind_watermark: int
    missing_open: int
    """Events that are known and not recorded, and rows that cannot be read."""
    missing_since: datetime | None
    """When the first of the missing events was found; None: nothing is missing but rows that cannot be read."""
    unreadable_rows: int
    """Those of `missing_open` that are rows of the list which cannot be read."""
    unreadable_since: datetime | None
    lost: int
    """Events that the list showed and the provider no longer has; acknowledged or not."""
    contradicting: int
    """Webhook events that lists lack, and that hold watermarks."""
    grant: GrantUse | None = None
    """The requests of the vendor's rolling period; None: nothing was asked yet."""
    learned: Learned | None = None
    """What is known of its rhythm, and the plan by which it is read; None: nothing yet."""
    learned_at: datetime | None = None
    unpaid_until: datetime | None = None
    """When a reading that was put off can be paid for; None: none waits."""
    interval: timedelta | None
    next_pass: datetime
    waiting_until: datetime | None = None
    """The time before which the provider wants no request; None: it wants no pause."""

    @property
    def plan(self) -> PlanSummary | None:
        """Return the plan by which the list is read; None: it is not known yet."""
        return None if self.learned is None else self.learned.plan

    @property
    def grant_used(self) -> float | None:
        """Return the requests of the rolling period per request that the vendor grants; None: unknown."""
        return None if self.grant is None else self.grant.ratio

    @property
    def is_running_out(self) -> bool:
        """Return True if the provider soon forgets events that were not compared yet."""
        if self.history is None or self.history_headroom is None:
            return False
        return self.history_headroom < LEAST_HEADROOM * self.history


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One source."""

    name: str
    provider: str
    coverage: Coverage
    mode: Mode
    state: str
    state_since: datetime | None
    reason: str | None
    types: tuple[str, ...]
    types_origin: str
    subscription_healthy: bool | None
    subscription_reason: str | None
    subscription_good_at: datetime | None
    """When our endpoint was last seen to be healthy."""
    other_account: str | None
    """The account that the key reads, if that is not the source's own."""
    account: str | None
    """The account that the source belongs to; None: not known yet."""
    livemode: bool | None
    """The mode of the source; None: its provider has no modes."""
    other_mode: int
    """Events of the mode that is not the source's own."""
    clock_skew: timedelta | None
    """Our clock less the provider's; None: unknown."""
    clock_unverified: bool
    """True if there is no clock to compare ours with: neither the provider's nor that of a database."""
    ahead: tuple[str, ...]
    """Which of the stored times lie in the future, although they cannot."""
    silent: bool | None
    """None: `silence_after` is not set, or the source's rhythm is not known yet."""
    quarantine_expired: int = 0
    """Refused webhooks that may be genuine, and were purged unjudged since a person looked."""
    quarantine_expired_at: datetime | None = None
    """When the first of them was purged."""
    heard_at: datetime | None
    """When its last webhook came, or when the source became active if none came; None: `silence_after` is not set."""
    streams: tuple[StreamReport, ...]
    events: Mapping[Via, int]
    duplicates: int
    losses: Losses | None
    gaps: Mapping[str, Gap | None]
    """By window; None: unknown."""
    unrecoverable: tuple[UnrecoverableEntry, ...]
    """The intervals for which nothing can be proven any more, whatever the list shows later."""
    failing: tuple[FailingPass, ...] = ()
    """The passes on demand that failed, and that nobody has cancelled."""
    listed: ListReport | None
    """None: the source is never compared with a list, so nothing can be proven about it."""

    @property
    def not_acknowledged(self) -> tuple[UnrecoverableEntry, ...]:
        """Return the unrecoverable intervals that nobody has acknowledged."""
        return tuple(loss for loss in self.unrecoverable if loss.acknowledged_us is None)

    @property
    def unrecoverable_time(self) -> timedelta:
        """Return the length of all unrecoverable intervals, acknowledged or not, summed over streams."""
        return sum((from_us(loss.end_us) - from_us(loss.start_us) for loss in self.unrecoverable), timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationReport:
    """The deliveries that one destination is still owed, and since when."""

    name: str
    state: str
    backlog: Mapping[DeliveryState, int]
    oldest: Mapping[DeliveryState, datetime]
    """When the oldest delivery in each state was created; only the states that occur."""
    late_since: datetime | None
    """Since when the oldest pending delivery has been due; None: none is due."""
    ahead: bool
    """True if deliveries are due further ahead than they are to wait."""
    dead: Mapping[str, int]
    """Dead letters by reason; every reason has an entry."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Held deliveries by reason; only the reasons that occur."""
    pause: Pause | None = None
    """Who has paused it, since when and why; None: it is not paused."""
    blocked: Blocked | None = None
    """The objects whose next delivery waits for a person, while others wait behind it; None: there are none."""
    unproven: int = 0
    """Deliveries that wait until the list is complete up to them."""
    unconfirmed: int = 0
    """Deliveries that were answered 2xx, and whose receipts have not come."""
    unconfirmed_again: int = 0
    """Those of them that were sent again, because no receipt came in time."""
    unconfirmed_since: datetime | None = None
    """When the first of them was answered; None: there is none."""

    @property
    def oldest_pending(self) -> datetime | None:
        """Return when the oldest pending delivery was created."""
        return self.oldest.get(DeliveryState.PENDING)


class StoreFault(StrEnum):
    """What is wrong with the store."""

    READ_ONLY = "read_only"
    LOCKED = "locked"
    REPLACED = "replaced"
    UNAVAILABLE = "unavailable"
    LOG_GROWS = "log_grows"
    """The write-ahead log of SQLite cannot start over; everything else works."""
    CANNOT_SEAL = "cannot_seal"
    """The key that should seal payloads is not there, so nothing is recorded."""
    KEY_MISSING = "key_missing"
    """Rows are sealed with a key that is not there; everything else works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """One fault of the store, as the process that writes sees it."""

    fault: StoreFault
    detail: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """All sources and destinations at one moment."""

    at: datetime
    sources: tuple[SourceReport, ...]
    destinations: tuple[DestinationReport, ...]
    store: tuple[StoreReport, ...] = ()
    older_processes: tuple[OlderProcess, ...] = ()
    """Running processes that were started with an older configuration."""
    clock_offsets: tuple[ClockOffset, ...] = ()
    """How far the machines of the running receivers are ahead of the database's clock."""
    unknown_sources: tuple[str, ...] = ()
    """Names of configured sources that the ledger does not know yet."""
