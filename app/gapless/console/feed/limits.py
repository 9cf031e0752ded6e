"""What the live stream may cost, and why a listener's connection ends. Plain data."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLimits:
    """The limits of one process."""

    clients: int = 64
    """Listeners at once."""
    buffer_events: int = 5_000
    buffer_bytes: int = 8 << 20
    """The newest events are kept for all listeners together. Who is further behind reads the ledger by itself."""
    page_events: int = 500
    page_bytes: int = 1 << 20
    """Events, and bytes of their payloads, that are read at once."""
    frame_bytes: int = 64 << 10
    """Bytes of one message, unless a single event has more."""
    reads: int = 2
    """Reads at once of all listeners that are behind."""
    send_within_s: float = 10.0
    """Time in which a listener takes what is sent; one that does not is cut."""
    heartbeat_s: float = 15.0
    """Time without an event after which a listener is told that there was none."""
    poll_s: float = 0.2
    """Time between two looks into the ledger. No notice wakes the reader: on PostgreSQL, a NOTIFY in each commit takes
    a lock that all writers share."""
    soon_s: float = 0.02
    """The same, while a transaction is awaited that may still commit an earlier event."""
    start_within_s: float = 10.0
    """Time in which the place to begin at must be known."""
    recheck_s: float = 5.0
    """Time between two checks of whether a listener's token still opens the stream."""
    messages: int = 16
    """Messages of a listener: it has nothing to say."""


class Closing(Enum):
    """Why we end a listener's connection: the close code, the label of the metric, and what the listener is told."""

    SLOW = (4008, "slow", "too slow: you do not take what is sent; go on with your last cursor")
    TOKEN = (4401, "token", "your token was revoked, has expired, or opens this no more")
    REPLACED = (4410, "replaced", "the ledger is another one now, and does not know your cursor")
    TALKS = (1008, "talks", "nothing is expected from you")
    NOT_READY = (1013, "not_ready", "the ledger cannot be read, or an open transaction holds it up; try again")
    FAILED = (1011, "failed", "the stream has failed; go on with your last cursor")

    @property
    def code(self) -> int:
        """The close code."""
        return self.value[0]

    @property
    def label(self) -> str:
        """The value of the label `reason`."""
        return self.value[1]

    @property
    def reason(self) -> str:
        """What the listener is told."""
        return self.value[2]
