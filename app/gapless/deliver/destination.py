"""One configured destination: who it is, what it wants, how gently it is treated, and its sender."""

from dataclasses import dataclass, field
from datetime import timedelta

from gapless.deliver.breaker import BreakerRule
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.destinations.contract import DestinationInvalid, HoldReason, Sender
from gapless.domain import TypePatterns, Via


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One configured destination. Times named `_us` are microseconds."""

    id: int
    """Of its row."""
    name: str
    sender: Sender
    sources: frozenset[str] | None
    """Names of the sources it wants; None: all."""
    types: TypePatterns
    via: frozenset[Via]
    since_us: int
    delay_us: int
    """How long what a list showed waits, so that its webhook may still come first."""
    concurrency: int
    rate: float | None
    """Attempts per second; None: no limit but `concurrency`."""
    timeout: timedelta
    retry: DeliveryRetryPolicy
    breaker: BreakerRule = field(default_factory=BreakerRule)
    lets_go: frozenset[HoldReason]
    """Held deliveries that are released when the dispatcher starts, because the team has chosen to deliver them."""

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise DestinationInvalid(f'destination "{self.name}": concurrency is {self.concurrency}; wanted at least 1')
        if self.rate is not None and not self.rate > 0:
            raise DestinationInvalid(
                f'destination "{self.name}": rate is {self.rate}; wanted more than 0, or leave it out'
            )
