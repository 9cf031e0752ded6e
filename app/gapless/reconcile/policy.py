"""The policy by which a source is read: everything that its configuration says about it. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from gapless.reconcile.pace import Pace
from gapless_reconcilers.kit.contract import Capabilities, Grant

DEFAULT_SETTLE = timedelta(seconds=10)
"""Nearly every webhook comes within this time of its event."""
MOST_AT_ONCE = 64
"""Slices of one source that are read at once, whatever its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """Everything that the configuration of a source says about its passes."""

    pace: Pace
    lookback: timedelta
    sweep_every: timedelta
    slices: int
    """Slices of one stream that are read at once."""
    rate: float
    """Requests a second."""
    capabilities: Capabilities
    """The provider's, with what the configuration overrides."""
    request_within: timedelta
    """Time for a whole request, to the last byte of the answer."""
    webhook_url: str
    share_account: bool
    repair: bool
    """True: our endpoint is enabled again when the provider has disabled it."""
    settle: timedelta = DEFAULT_SETTLE
    """The age from which on a listed event is recorded, so that its webhook can come first, until it was learned."""
    is_grace_set: bool = False
    """The configuration sets the grace, so that none is learned."""
    grant: Grant | None = None
    """What the vendor lets us read; None: it publishes nothing."""

    @property
    def at_once(self) -> int:
        """Return how many slices of the source are read at once: enough for the rate if answers take half a second."""
        return max(self.slices, min(MOST_AT_ONCE, round(self.rate / 2)))
