"""What a process is given, and what all its roles share."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import httpx

from gapless.daemon.opening import Ledger, Registered
from gapless.domain import Clock, Sources, system_clock
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.reconcile.fetch import PATIENT, Patience
from gapless.reconcile.road import Policy
from gapless.reconcile.schedule import TICK_S
from gapless.settings import Settings


class Role(StrEnum):
    """What a process does. On SQLite one process has all roles."""

    RECEIVE = "receive"
    RECONCILE = "reconcile"
    DELIVER = "deliver"
    CONSOLE = "console"


ALL_ROLES = frozenset(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where a daemon answers. `public` is empty without the role `receive`."""

    private: str
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The clock, and how patient the daemon is with providers."""

    clock: Clock = system_clock
    tick_s: float = TICK_S
    patience: Patience = PATIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What every role of a process shares."""

    settings: Settings
    environ: Mapping[str, str]
    roles: frozenset[Role]
    timing: Timing
    ledger: Ledger
    registered: Registered
    book: Sources
    writer: Writer
    metrics: Metrics
    holder: str
    client: httpx.AsyncClient
    policies: Mapping[str, Policy]
    """How each source is read, by name."""

    @property
    def receives(self) -> bool:
        """True if this process takes webhooks."""
        return Role.RECEIVE in self.roles
