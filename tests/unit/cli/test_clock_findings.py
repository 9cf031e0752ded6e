"""What `gapless check` finds about clocks."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gapless.cli.output import FindingLevel
from gapless.cli.provider_checks import _clock, compare_clocks
from gapless.domain import Mode, Source, Sources, system_clock
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions


@pytest.mark.parametrize(
    ("skew_s", "level"),
    [(0, "OK"), (4, "OK"), (-5, "WARNING"), (59, "WARNING"), (60, "PROBLEM"), (-3600, "PROBLEM")],
)
def test_clocks_that_differ_are_told(skew_s: int, level: str) -> None:
    found = compare_clocks("store", "the database's", timedelta(seconds=skew_s))
    assert found.verdict is FindingLevel[level]
    assert ("the clocks agree" in found.text) == (level == "OK")


@pytest.mark.anyio
@pytest.mark.parametrize(("has_clock", "unverified"), [(False, True), (True, False)])
async def test_a_clock_that_nothing_verifies_is_told(*, has_clock: bool, unverified: bool) -> None:
    provider = Stripe(StripeOptions(api_key=Secret("sk_live_x")))
    source = Source(id=1, name="acme", provider=provider, mode=Mode.POLL, start=datetime(2026, 1, 1, tzinfo=UTC))
    async with httpx.AsyncClient() as http:
        known = {"clock": system_clock, "metrics": Metrics("t"), "rate": 1}
        client = ProviderClient(http, Sources([source]), "acme", **known)
        (found,) = _clock("source acme", client, has_clock=has_clock)
    assert found.verdict is FindingLevel.WARNING
    assert ("unverified" in found.text) == unverified
    assert "no Date header" in found.text
