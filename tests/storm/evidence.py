"""What a storm leaves behind, as plain data: the checks and the table know nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from storm.faults import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """An event that the provider has. `visible_at`: from when on its list shows it."""

    key: str
    occurred_at: datetime
    visible_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An event in the ledger."""

    key: str
    via: str
    expected: bool
    missed: bool
    webhooks: int
    awaited: bool = False
    """A list showed it first, and it is not judged yet: its grace is not over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """A page lacked these events, although the list has them. `kind` says how."""

    at: datetime
    kind: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the daemon said of its source at one moment. All but `at` and `answered` are empty if it did not answer.

    `checked_at` is true time: the harness knows by how much the daemon's clock was wrong.
    """

    at: datetime
    answered: bool
    ledger_read: bool = False
    """The ledger could be read right after the answer, so the claim can be checked."""
    complete_up_to: datetime | None = None
    checked_at: datetime | None = None
    watermark: datetime | None = None
    found_behind: int = 0
    needs_a_person: tuple[str, ...] = ()
    """The kinds of the troubles that are not in hand."""
    last_outcome: str | None = None

    @property
    def is_healthy(self) -> bool:
        """Return True if nobody is needed and the last pass could be read."""
        return self.answered and not self.needs_a_person and self.last_outcome in (None, "clean", "found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The figures that the daemon shows of its source at the end."""

    by_webhook: int
    by_list: int
    expected: int
    missed: int
    recovered: int
    late: int
    duplicates: int
    found_behind: int
    missing_open: int
    unrecoverable: int
    lost: int
    backlog: Mapping[str, int] = field(default_factory=dict)
    """Deliveries that are not done, by state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything about the storm over one store. Times are true, never those of a daemon whose clock is wrong."""

    store: str
    began: datetime
    ended: datetime
    events: Sequence[Emitted]
    ledger: Sequence[Row]
    recorded_at: Mapping[str, datetime]
    """The time of the sample that first saw each event in the ledger."""
    acknowledged: Mapping[str, int]
    """How many webhooks of each event were answered 2xx."""
    first_acknowledged_at: Mapping[str, datetime]
    posts: Mapping[str, int]
    """How many genuine webhooks of each event can have reached the daemon at most."""
    never_posted: frozenset[str]
    """Events of which no webhook can have reached the daemon."""
    first_shown_at: Mapping[str, datetime]
    """When a page that could be read first showed each event."""
    lies: Sequence[Lie]
    attempts: Mapping[str, Sequence[str]]
    """The idempotency id of each delivery attempt that the consumer received, by event."""
    accepted_at: Mapping[str, datetime]
    """When the consumer first accepted each event."""
    totals: Totals | None
    """None: the daemon showed none at the end."""
    samples: Sequence[Sample]
    faults: Sequence[Fault]
    calm: timedelta
    """The longest calm. A fault that was alone must be recovered from in it: what comes next may be a new process."""
    ended_by_itself: Sequence[str] = ()
    """For each time that the daemon ended although nobody killed it: its exit code and last words."""
