"""What the configuration of a source says about its passes, with what its provider wants."""

from datetime import timedelta
from typing import Any

import pytest

from gapless.bootstrap.policies import make_policy
from gapless.settings import SourceSettings
from gapless.settings.tree import ReadBudgetSettings
from gapless_reconcilers.kit.contract import Grant, Provider, Secret
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
PAYPAL = PayPal(PayPalOptions(client_id="c", client_secret=Secret("x")))
STRIPE = Stripe(StripeOptions(api_key=Secret("sk_live_x")))


def settings(**changes: Any) -> SourceSettings:
    return SourceSettings(name="acme", provider="stripe", **changes)


@pytest.mark.parametrize(
    ("provider", "every", "shortest"),
    [(PAYPAL, MINUTE / 2, MINUTE), (PAYPAL, 5 * MINUTE, 5 * MINUTE), (STRIPE, MINUTE / 2, MINUTE / 2)],
)
def test_no_source_is_read_more_often_than_its_provider_wants(
    provider: Provider, every: timedelta, shortest: timedelta
) -> None:
    pace = make_policy(settings(every=every, every_max=every), provider, None).pace
    assert (pace.shortest, pace.longest) == (shortest, shortest)


def test_a_read_budget_takes_the_place_of_the_grant() -> None:
    assert make_policy(settings(), STRIPE, None).grant == Stripe.capabilities.grant
    own = settings(read_budget=ReadBudgetSettings(requests=700, period=DAY))
    assert make_policy(own, STRIPE, None).grant == Grant(requests=700, period=DAY, source="read_budget")
    assert make_policy(settings(), PAYPAL, None).grant is None
