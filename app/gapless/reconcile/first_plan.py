"""The plan of a source before anything is known of it, for `gapless check`, which has no ledger yet. Pure."""

from datetime import timedelta

from gapless.domain import HOURS_OF_WEEK
from gapless.reconcile.heartbeat import StreamLoad
from gapless.reconcile.lateness import settle_time
from gapless.reconcile.pace import NEVER
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.purse import allow
from gapless.reconcile.reading_plan import PAGE, ReadingFacts, ReadingPlan, plan_reading
from gapless.reconcile.window import sweep_depth
from gapless_reconcilers.kit.contract import OWN_STREAM


def first_plan(policy: SourcePolicy) -> ReadingPlan:
    """Return the plan by which a source with one stream is read at the least grant."""
    known, grant = policy.capabilities, policy.grant
    return plan_reading(
        ReadingFacts(
            allowance=None if grant is None else allow(grant.amount(0), grant.period),
            streams={OWN_STREAM: StreamLoad(rate=0.0, cost=1.0 + bool(known.precondition))},
            rates=[0.0] * HOURS_OF_WEEK,
            groups_a_day=0.0,
            settle=min(settle_time(None), max(known.grace - known.resolution, timedelta(0))),
            page=PAGE,
            rate=policy.rate,
            sweep_depth=sweep_depth(known.history),
            sweep_every=policy.sweep_every if policy.sweep_every < NEVER else None,
            history=known.history,
            shortest=policy.pace.shortest,
            longest=policy.pace.longest,
        )
    )
