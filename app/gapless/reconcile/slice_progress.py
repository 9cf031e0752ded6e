"""How far the reading of one slice has come."""

import time
from array import array
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import httpx

from gapless.domain import align_down, from_us, to_us
from gapless.ledger import Connection, passes
from gapless.ledger.passes import Slice
from gapless.ledger.writer import Work
from gapless.provider_api.pages import freeze
from gapless_reconcilers.kit.contract import Window


@dataclass(slots=True, kw_only=True)
class SliceProgress:
    """The progress of one slice. `shown` holds the seq of every witness that the listing showed."""

    part: Slice
    shown: "array[int]" = field(default_factory=lambda: array("q"))
    next: httpx.Request | None = None
    """The request for the next page; None: no page was read yet, or the last one was."""
    stored: int = 0
    """Length of `shown` that is stored with the cursor."""
    saved_at: float = field(default_factory=time.monotonic)
    left_us: int | None = None
    """The first row that was too young to be recorded, in whole units of the list's times; None: there was none."""
    in_other_cut: bool = False
    """True: the pages are not those of the slice's own walk, so they do not move its cursor."""

    @property
    def window(self) -> Window:
        """The time of the slice."""
        return Window(start=from_us(self.part.start_us), end=from_us(self.part.end_us))

    def leave(self, first: datetime | None, unit: timedelta) -> None:
        """Note that rows of a page were too young to be recorded, from `first` on; None: there was none."""
        if first is not None:
            left_us = to_us(align_down(first, unit))
            self.left_us = left_us if self.left_us is None else min(self.left_us, left_us)

    def saving(self, following: httpx.Request | None) -> Work[None]:
        """Return the work that stores the cursor; None: the last page was read."""
        if self.in_other_cut:
            return keep_cursor
        cursor = None if following is None else freeze(following)
        shown = self.shown[self.stored :].tobytes()
        return partial(passes.save_cursor, slice_id=self.part.id, cursor=cursor, shown=shown, left_us=self.left_us)

    def starting_again(self) -> Work[None]:
        """Return the work that makes the slice start from its beginning the next time."""
        return keep_cursor if self.in_other_cut else partial(passes.save_cursor, slice_id=self.part.id, cursor=None)

    def note_saved(self) -> None:
        """Note that `saving` was done."""
        self.saved_at = time.monotonic()
        self.stored = len(self.shown)


def keep_cursor(_connection: Connection) -> None:
    """Save no cursor."""
