"""Whether the gap is closed, and when nothing more can come. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gapless.demo.consumer import Attempt
from gapless.demo.status import Status

PASSES_NEEDED = 2
"""A pass that ends after an event is visible may have begun before; the next one has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What differs between the provider and the consumer. All empty: the gap is closed."""

    lacking: tuple[str, ...]
    """Events of the provider that the consumer has not taken."""
    strange: tuple[str, ...]
    """Events of the consumer that the provider does not know."""
    changed: tuple[str, ...]
    """Events that came with more than one idempotency id, with none, or with that of another event."""
    refused: int
    """Deliveries with a signature that is not good."""
    repeated: int
    """Attempts beyond the first of an event."""

    @property
    def closed(self) -> bool:
        """True if both have the same events, and every attempt was recognisable."""
        return not (self.lacking or self.strange or self.changed or self.refused)


def judge(
    truth: Collection[str], attempts: Mapping[str, Sequence[Attempt]], accepted: Collection[str], refused: int
) -> Verdict:
    """Hold what the consumer saw against the provider's events."""
    ids = {key: {attempt.idempotency_id for attempt in each} for key, each in attempts.items()}
    users = Counter(idempotency_id for each in ids.values() for idempotency_id in each)
    changed = [key for key, each in ids.items() if len(each) > 1 or "" in each or any(users[one] > 1 for one in each)]
    return Verdict(
        lacking=tuple(key for key in truth if key not in accepted),
        strange=tuple(sorted(set(accepted).difference(truth))),
        changed=tuple(changed),
        refused=refused,
        repeated=sum(len(each) - 1 for each in attempts.values()),
    )


@dataclass(slots=True, kw_only=True)
class Ending:
    """Tells from one status after the other when waiting longer can change nothing.

    `last_occurred`: the time of the last event; `all_visible_at`: when the provider's list shows all it will.
    """

    last_occurred: datetime
    all_visible_at: datetime
    _passes: set[datetime] = field(default_factory=set)

    def is_reached(self, status: Status) -> bool:
        """True once two complete passes ended with everything visible, and nothing waits to be delivered."""
        listed = status.source.list
        if listed.last_complete_pass is not None and listed.last_complete_pass > self.all_visible_at:
            self._passes.add(listed.last_complete_pass)
        is_vouched_for = listed.complete_up_to is not None and listed.complete_up_to > self.last_occurred
        return is_vouched_for and len(self._passes) >= PASSES_NEEDED and status.pending == 0
