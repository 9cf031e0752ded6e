"""What one connection and all together may have. Pure."""

from dataclasses import dataclass
from typing import Final

from gapless.client_address import TrustedProxies

LEAST: Final = 16
"""Connections that a listener allows however few descriptors there are."""
OWN_DESCRIPTORS: Final = 160
"""Descriptors of the process itself: files of the ledger, sockets towards providers, and what the libraries open."""
ADDRESS_SHARE: Final = 0.75
"""Most of a listener's connections that one address may have, whatever `per_address` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of one listener."""

    most: int = 1_000
    """Connections in all."""
    per_address: int = 500
    """Connections of one client address; of IPv6, of one /64."""
    head_bytes: int = 32 * 1024
    """Bytes of request line and headers; trailers may have as many again."""
    headers: int = 128
    """Header lines of one request; trailers may have as many again."""
    pipelined: int = 16
    """Requests on one connection that wait for the answer to an earlier one."""
    head_within_s: float = 10.0
    """Time from accept to the first byte of a request, and from there to the end of the head."""
    body_starts_within_s: float = 10.0
    """Time from the end of the head to the first byte of the body."""
    body_within_s: float = 30.0
    """Time from the first byte of the body to the last."""
    idle_within_s: float = 65.0
    """Time between two requests on one connection."""
    unread_within_s: float = 30.0
    """Time for which an answer may wait for a peer that does not read."""
    close_within_s: float = 5.0
    """Time in which a closed connection must have ended; then it is reset."""
    trusted: TrustedProxies | None = None
    """Proxies that are trusted to name the client. They have no cap of their own. None: there are none."""

    @property
    def most_of_one_address(self) -> int:
        """Return the connections of one address: never all that the listener has."""
        return max(1, min(self.per_address, int(self.most * ADDRESS_SHARE)))


def share_descriptors(descriptors: int | None, *, own: int, public: int, private: int) -> tuple[int, int]:
    """Return how many connections the public and the private listener may have with so many descriptors.

    `own`: descriptors that the process needs beside them. `descriptors` None: unlimited. The private listener keeps
    what is its own, so that probes are answered while the public one is full.
    """
    if descriptors is None:
        return public, private
    left = max(0, descriptors - own)
    private = min(private, max(LEAST, left // 4))
    return max(LEAST, min(public, left - private)), private
