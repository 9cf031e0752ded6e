"""The purse of a source: what its vendor grants at present, and how much of that we use. Pure."""

from datetime import timedelta
from typing import Final

from gapless.ledger.budgets import PurseTerms
from gapless_reconcilers.kit.contract import Grant

USED_SHARE: Final = 0.5
"""The share of a grant that we use: the rest is left to the account's own code."""
REFILLED: Final = 0.8
"""The share of what we use that refills evenly. The purse holds the rest, so no period has more than our share."""
UNPUBLISHED: Final = timedelta(days=30)
"""The period in which requests are counted if the vendor publishes no grant."""
COUNTED_EVERY: Final = timedelta(hours=1)
"""Time after which the events that earn requests are counted again."""


def purse_terms(grant: Grant | None, events: int) -> PurseTerms:
    """Return what is granted, and the purse for it, in a period in which `events` earned requests."""
    if grant is None:
        return PurseTerms(granted=None, period=UNPUBLISHED)
    granted = grant.amount(events)
    ours = granted * USED_SHARE
    return PurseTerms(
        granted=granted,
        period=grant.period,
        full=ours * (1 - REFILLED),
        per_day=ours * REFILLED * (timedelta(days=1) / grant.period),
    )
