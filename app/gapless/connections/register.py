"""Who is connected to a listener, what each connection waits for, and which one goes when there are too many.

Each connection is in one phase. Those of a phase stand in the order in which they entered it, so the oldest is found
without a search and no connection needs a timer of its own.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from enum import IntEnum, StrEnum
from itertools import islice
from typing import Final, Protocol

from gapless.client_address import client_address, is_in, parse_address, sender_at
from gapless.connections.limits import ConnectionLimits
from gapless.metrics import Metrics

SWEEP_EVERY_S: Final = 1.0
LOG_EVERY_S: Final = 60.0
LOOKED_AT: Final = 16
"""Connections of an address among which the one that gives way is chosen: the oldest that wait for their peer."""
log = logging.getLogger(__name__)


class ConnectionPhase(IntEnum):
    """What a connection waits for."""

    FRESH = 0
    """The first byte of its first request."""
    IDLE = 1
    """The first byte of another request."""
    HEAD = 2
    """The rest of a head."""
    AWAITED = 3
    """The first byte of a body."""
    BODY = 4
    """The rest of a body."""
    ANSWER = 5
    """Us."""
    CLOSING = 6
    """The end: we have closed it."""


FRESH, IDLE, HEAD, AWAITED, BODY, ANSWER, CLOSING = ConnectionPhase
"""The members by themselves: to look them up in their class takes longer than what is done with them."""


class CloseReason(StrEnum):
    """Why we closed a connection."""

    NO_REQUEST = "no_request"
    IDLE = "idle"
    HEAD_LATE = "head_late"
    BODY_LATE = "body_late"
    UNREAD = "unread"
    HEADERS_TOO_LARGE = "headers_too_large"
    URL_TOO_LONG = "url_too_long"
    PIPELINED = "pipelined"
    MALFORMED = "malformed"
    OVER_LIMIT = "over_limit"
    OVER_ADDRESS = "over_address"
    GAVE_WAY = "gave_way"


EXPECTED: Final = frozenset({CloseReason.IDLE, CloseReason.NO_REQUEST})
"""What happens every day, and is counted without a line."""


class OpenConnection(Protocol):
    """What the register knows of a connection."""

    phase: ConnectionPhase
    since: float
    address: str | None
    """The key under which it is counted; None: under none."""

    def refuse(self, reason: CloseReason) -> None:
        """Answer with an error where that is possible, and close."""

    def drop(self) -> None:
        """Close at once, without an answer."""

    def review(self, now: float) -> None:
        """End it if it is done, or if the peer does not read. Called now and then while it waits for us."""


class Connections:
    """The connections of one listener. `watch` closes those that take too long."""

    def __init__(
        self,
        listener: str,
        metrics: Metrics,
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._listener = listener
        self._now = now
        self._in: list[OrderedDict[OpenConnection, None]] = [OrderedDict() for _ in ConnectionPhase]
        self._by_address: dict[str, OrderedDict[OpenConnection, None]] = {}
        self._all: set[OpenConnection] = set()
        self._closed = {reason: metrics.connections_closed.labels(listener, reason.value) for reason in CloseReason}
        self._unlogged: Counter[CloseReason] = Counter()
        self._logged_at = -LOG_EVERY_S
        metrics.connections.labels(listener).set_function(lambda: len(self._all))
        self._deadlines = (
            (self._in[FRESH], limits.head_within_s, CloseReason.NO_REQUEST),
            (self._in[IDLE], limits.idle_within_s, CloseReason.IDLE),
            (self._in[HEAD], limits.head_within_s, CloseReason.HEAD_LATE),
            (self._in[AWAITED], limits.body_starts_within_s, CloseReason.BODY_LATE),
            (self._in[BODY], limits.body_within_s, CloseReason.BODY_LATE),
        )

    def __len__(self) -> int:
        return len(self._all)

    def count_in(self, phase: ConnectionPhase) -> int:
        """Return how many connections are in a phase."""
        return len(self._in[phase])

    def time(self) -> float:
        """Return the time by which connections are judged, in seconds."""
        return self._now()

    # --- one connection ----------------------------------------------------------------------------------------------

    def admit(self, connection: OpenConnection, host: str | None) -> bool:
        """Count a new connection of `host`, closing an older one if there are too many. False: there is no room."""
        connection.address = self._key(host)
        if connection.address is not None and not self._room_for(connection.address, connection):
            self.count(CloseReason.OVER_ADDRESS)
            return False
        if len(self._all) >= self.limits.most and not self._make_room():
            self.count(CloseReason.OVER_LIMIT)
            return False
        connection.phase, connection.since = FRESH, self._now()
        self._in[FRESH][connection] = None
        self._all.add(connection)
        self._join(connection)
        return True

    def attribute(self, connection: OpenConnection, address: str | None) -> bool:
        """Count a connection of a proxy as one of the client that its request is from. False: that has too many."""
        self._part(connection)
        connection.address = None
        if address is not None and not self._room_for(address, connection):
            return False
        connection.address = address
        self._join(connection)
        return True

    def hand_over(self, connection: OpenConnection, to: OpenConnection) -> None:
        """Go on with another object for the same connection, which waits for us from now on."""
        address = connection.address
        self.leave(connection)
        to.phase, to.since, to.address = ANSWER, self._now(), address
        self._in[ANSWER][to] = None
        self._all.add(to)
        self._join(to)

    def enter(self, connection: OpenConnection, phase: ConnectionPhase) -> None:
        """Note what a connection waits for from now on."""
        if connection not in self._all:
            return
        del self._in[connection.phase][connection]
        connection.phase, connection.since = phase, self._now()
        self._in[phase][connection] = None

    def leave(self, connection: OpenConnection) -> None:
        """Forget a connection. To do it again changes nothing."""
        if connection in self._all:
            self._all.remove(connection)
            del self._in[connection.phase][connection]
            self._part(connection)

    def count(self, reason: CloseReason) -> None:
        """Count a connection that we close."""
        self._closed[reason].inc()
        if reason not in EXPECTED:
            self._unlogged[reason] += 1

    # --- time --------------------------------------------------------------------------------------------------------

    async def watch(self, every_s: float = SWEEP_EVERY_S) -> None:
        """Sweep every `every_s` seconds, until cancelled; then say what was closed since the last line."""
        try:
            while True:
                await asyncio.sleep(every_s)
                self.sweep()
        finally:
            self._log_closed()

    def sweep(self) -> None:
        """Close what has waited too long, and say in one line what was closed."""
        now = self._now()
        for waiting, within_s, reason in self._deadlines:
            for connection in _overdue(waiting, now - within_s):
                connection.refuse(reason)
                if connection in waiting:
                    self._end(connection)
        for connection in _overdue(self._in[CLOSING], now - self.limits.close_within_s):
            self._end(connection)
        for connection in list(self._in[ANSWER]):
            connection.review(now)
        if now - self._logged_at >= LOG_EVERY_S:
            self._log_closed()

    def _log_closed(self) -> None:
        if not self._unlogged:
            return
        reasons = {reason.value: number for reason, number in self._unlogged.items()}
        extra = {"listener": self._listener, "count": sum(reasons.values()), "reasons": reasons}
        log.warning("connections_closed", extra=extra)
        self._logged_at = self._now()
        self._unlogged.clear()

    # --- room --------------------------------------------------------------------------------------------------------

    def _key(self, host: str | None) -> str | None:
        return None if self.is_proxy(host) else sender_at(host or "") or None

    def is_proxy(self, host: str | None) -> bool:
        """Return True if the peer is a named proxy."""
        address, trusted = parse_address(host or ""), self.limits.trusted
        return address is not None and trusted is not None and is_in(address, trusted.networks)

    def named_by(self, host: str | None, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the key of the client that the proxy at `host` names; None: it names none."""
        client = client_address(host, headers, self.limits.trusted)
        return None if self.is_proxy(client) else sender_at(client) or None

    def _room_for(self, address: str, newcomer: OpenConnection) -> bool:
        """Return True if the address may have another connection, after its oldest was closed if it must be.

        Looked for from the oldest on, so that who opens ever new ones costs no more than the opening.
        """
        of_it = self._by_address.get(address, ())
        if len(of_it) < self.limits.most_of_one_address:
            return True
        waiting = (each for each in of_it if each.phase is not ANSWER and each is not newcomer)
        some = list(islice(waiting, LOOKED_AT))
        return self._give_way(some)

    def _make_room(self) -> bool:
        """End the connection that has waited longest for its peer, whether it is idle or has sent half of something."""
        return self._give_way([next(iter(waiting)) for waiting in self._in if waiting])

    def _give_way(self, candidates: Iterable[OpenConnection]) -> bool:
        oldest = min(
            (each for each in candidates if each.phase is not ANSWER),
            key=lambda each: (each.phase is not CLOSING, each.since),
            default=None,
        )
        if oldest is None:
            return False
        self.count(CloseReason.GAVE_WAY)
        self._end(oldest)
        return True

    def _end(self, connection: OpenConnection) -> None:
        self.leave(connection)
        connection.drop()

    def _join(self, connection: OpenConnection) -> None:
        if connection.address is not None:
            self._by_address.setdefault(connection.address, OrderedDict())[connection] = None

    def _part(self, connection: OpenConnection) -> None:
        address = connection.address
        if address is not None and (of_it := self._by_address.get(address)):
            of_it.pop(connection, None)
            if not of_it:
                del self._by_address[address]


def _overdue(waiting: OrderedDict[OpenConnection, None], until: float) -> Iterable[OpenConnection]:
    """Yield the connections that entered the phase before `until`. Each must have left it before the next is asked."""
    while waiting and (oldest := next(iter(waiting))).since <= until:
        yield oldest
