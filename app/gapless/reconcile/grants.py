"""The purse of a source: what its vendor grants at present, and how much of that we use. Pure."""

from datetime import timedelta
from typing import Final

from gapless.domain import from_us
from gapless.ledger.budgets import PurseState, PurseTerms
from gapless.reconcile.purse import Allowance, Purse, allow
from gapless_reconcilers.kit.contract import Grant

UNPUBLISHED: Final = timedelta(days=30)
"""The period in which requests are counted if the vendor publishes no grant."""
COUNTED_EVERY: Final = timedelta(hours=1)
"""Time after which the events that earn requests are counted again."""


def purse_terms(grant: Grant | None, events: int) -> PurseTerms:
    """Return what is granted, and the purse for it, in a period in which `events` earned requests."""
    if grant is None:
        return PurseTerms(granted=None, period=UNPUBLISHED)
    granted = grant.amount(events)
    ours = allow(granted, grant.period)
    return PurseTerms(granted=granted, period=grant.period, full=ours.full, per_day=ours.per_day)


def allowance_of(terms: PurseTerms, sharing: int = 1) -> Allowance | None:
    """Return what one of `sharing` sources of a scope may plan with; None: the vendor publishes no grant."""
    if terms.granted is None:
        return None
    return allow(terms.granted / sharing, terms.period)


def purse_of(state: PurseState, terms: PurseTerms) -> Purse:
    """Return the purse that the ledger holds."""
    return Purse(owed=max(0.0, terms.full - state.tokens), at=from_us(state.at_us))
