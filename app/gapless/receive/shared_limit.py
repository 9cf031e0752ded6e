"""How much may be done for strangers: a limit for all, and a share of it for each sender."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gapless.token_bucket import TokenBucket

MOST_SENDERS: Final = 1024
"""Most senders whose use is remembered; beyond it, those who asked longest ago are forgotten."""


class SharedLimit:
    """Grants what `all` has, and to one sender no more than a bucket of `share` has."""

    __slots__ = ("_all", "_of", "_share")

    def __init__(self, *, all: TokenBucket, share: Callable[[], TokenBucket]) -> None:  # noqa: A002 - what it is
        self._all = all
        self._share = share
        self._of: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, sender: str, now_us: int) -> bool:
        """Take one; return False if the sender has used up its share, or all have used up the whole."""
        share = self._of.get(sender)
        if share is None:
            share = self._of[sender] = self._share()
        self._of.move_to_end(sender)
        while len(self._of) > MOST_SENDERS:
            self._of.popitem(last=False)
        return bool(share.available(now_us)) and self._all.take(now_us) and share.take(now_us)
