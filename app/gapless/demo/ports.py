"""Ports that the daemon can come back to after it was killed."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gapless.errors import Unavailable

HOST = "127.0.0.1"


class PortTaken(Unavailable):
    """Another program listens where the demo was told to."""

    def __init__(self, port: int, option: str) -> None:
        super().__init__(
            f"{HOST}:{port} is taken: stop what listens there, or give {option} another port (0: a free one)"
        )


@contextmanager
def reserve(port: int, option: str) -> Iterator[int]:
    """A port that only those who know it can bind, for as long as the block lasts. Raises `PortTaken`.

    On Linux a socket that is bound with SO_REUSEADDR and does not listen keeps the kernel from giving the
    port away, and lets the daemon bind it. Elsewhere it would keep the daemon out, so it is closed at once.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((HOST, port))
        except OSError as error:
            raise PortTaken(port, option) from error
        taken = int(held.getsockname()[1])
        if sys.platform != "linux":
            held.close()
        yield taken
