"""What the demo reads of the daemon's `/api/status`, which has more."""

from datetime import datetime

import msgspec


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """How far the ledger agrees with the provider's list; None: not known yet."""

    complete_up_to: datetime | None
    last_complete_pass: datetime | None


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One source. `events` counts by how they were first recorded."""

    name: str
    events: dict[str, int]
    duplicates: int
    list: Listed


class DestinationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One destination. `backlog` counts deliveries that are not done, by state."""

    name: str
    backlog: dict[str, int]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's own account. The demo has one source and one destination."""

    at: datetime
    sources: tuple[SourceStatus, ...]
    destinations: tuple[DestinationStatus, ...]

    @property
    def source(self) -> SourceStatus:
        """The one source."""
        return self.sources[0]

    @property
    def pending(self) -> int:
        """Deliveries that are still tried."""
        return sum(each.backlog.get("pending", 0) for each in self.destinations)


def read_status(body: bytes) -> Status:
    """The status in an answer of `/api/status`. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(body, type=Status)
