"""The bodies that are coming in. Together with what waits for a commit they hold at most so many bytes.

A body is believed only when it is whole and verified. So those under way never cost a verified webhook its place: they
give way to it, the oldest first. It gives way to younger ones too, because a genuine sender sends its body at once.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

SMALL: Final = 4096
"""Parts below it are held together: each by itself would cost more than it brings."""


class Body:
    """One body that comes in parts. It has given way if `gave_way`; then its parts are gone."""

    __slots__ = ("_bodies", "_parts", "_small", "gave_way", "size")

    def __init__(self, bodies: "Bodies") -> None:
        self._bodies = bodies
        self._parts: list[bytes] = []
        self._small = bytearray()
        self.size = 0
        """Bytes that are held."""
        self.gave_way = False

    def add(self, part: bytes) -> None:
        """Hold another part, unless there is no room for it even without the others: then this body gives way."""
        if not self.gave_way:
            if len(part) < SMALL:
                self._small += part
            else:
                self._parts += [bytes(self._small), part] if self._small else [part]
                self._small.clear()
            self._bodies.hold(self, len(part))

    def clear(self) -> None:
        """Hold nothing any more."""
        self._parts.clear()
        self._small.clear()
        self._bodies.release(self)

    def whole(self) -> bytes:
        """Return all parts as one."""
        return b"".join([*self._parts, self._small])


class Bodies:
    """All bodies under way.

    `limit`: most bytes of them and of `queued()`, the bytes that wait for a commit. `largest`: the largest body that is
    taken; all bodies together hold half of `limit`, or that much if it is more.
    """

    __slots__ = ("_held", "_limit", "_queued", "_share", "_under_way")

    def __init__(self, limit: int, queued: Callable[[], int], largest: int = 0) -> None:
        self._limit = limit
        self._share = max(limit // 2, largest)
        self._queued = queued
        self._held = 0
        self._under_way: OrderedDict[Body, None] = OrderedDict()

    @property
    def held(self) -> int:
        """Bytes of all bodies under way."""
        return self._held

    def begin(self) -> Body:
        """Return a new body. It holds room from its first part until `clear`."""
        return Body(self)

    def hold(self, body: Body, size: int) -> None:
        """Count `size` more bytes of a body, and let the oldest bodies give way for them."""
        self._under_way.setdefault(body)
        body.size += size
        self._held += size
        self.make_room()

    def make_room(self, size: int = 0) -> None:
        """Let the oldest bodies give way until `size` more bytes may wait for a commit."""
        while self._under_way and (self._held > self._share or self._held + self._queued() + size > self._limit):
            oldest = next(iter(self._under_way))
            oldest.gave_way = True
            oldest.clear()

    def release(self, body: Body) -> None:
        """Count a body no more. To do it again changes nothing."""
        if body in self._under_way:
            del self._under_way[body]
            self._held -= body.size
            body.size = 0
