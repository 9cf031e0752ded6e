"""What is left to us, as vendors' headers say."""

from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import Capabilities, Grant, Pool, Quota, ReadBudget, Secret
from gapless_reconcilers.kit.quotas import FURTHEST, read_quota
from gapless_reconcilers.providers.shopify.graphql import read_quota as of_shopify
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
EPOCH_S = int(NOW.timestamp())


def respond(**headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(200, headers=named)


def left(remaining: int, seconds: float, limit: int | None) -> Quota:
    return Quota(remaining=remaining, resets_at=NOW + timedelta(seconds=seconds), limit=limit)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        pytest.param(
            {"x_ratelimit_limit": "5000", "x_ratelimit_remaining": "4987", "x_ratelimit_reset": str(EPOCH_S + 1800)},
            left(4987, 1800, 5000),
            id="GitHub: seconds since 1970",
        ),
        pytest.param(
            {
                "ratelimit_limit": "1000",
                "ratelimit_remaining": "163",
                "ratelimit_reset": "Fri, 27 Nov 2026 12:01:00 GMT",
                "date": "Fri, 27 Nov 2026 12:00:30 GMT",
            },
            left(163, 30, 1000),
            id="GoCardless: a date, by the vendor's clock",
        ),
        pytest.param(
            {"ratelimit_limit": "300", "ratelimit_remaining": "280", "ratelimit_reset": "53"},
            left(280, 53, 300),
            id="drafts 03 to 05: seconds from now",
        ),
        pytest.param({"ratelimit": "limit=100, remaining=50, reset=30"}, left(50, 30, 100), id="draft 07"),
        pytest.param(
            {"ratelimit": '"default";r=50;t=30', "ratelimit_policy": '"default";q=100;w=60'},
            left(50, 30, 100),
            id="draft 08",
        ),
        pytest.param(
            {"ratelimit_limit": "100, 100;w=60", "ratelimit_remaining": "9", "ratelimit_reset": "4.5"},
            left(9, 4, 100),
            id="with the policy in the limit, and a fraction",
        ),
        pytest.param(
            {"x_rate_limit_remaining": "3", "x_rate_limit_reset": str((EPOCH_S + 7) * 1000)},
            left(3, 7, None),
            id="milliseconds, no limit",
        ),
        pytest.param({"x_ratelimit_remaining": "0", "retry_after": "20"}, left(0, 20, None), id="Retry-After"),
        pytest.param({"x_ratelimit_remaining": "0", "x_ratelimit_reset": str(EPOCH_S - 9)}, left(0, 0, None)),
    ],
)
def test_what_is_left_is_read_in_every_usual_form(headers: dict[str, str], wanted: Quota) -> None:
    assert read_quota(respond(**headers), NOW) == wanted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_ratelimit_limit": "5000"},
        {"x_ratelimit_remaining": "12"},
        {"x_ratelimit_remaining": "-1", "x_ratelimit_reset": "10"},
        {"x_ratelimit_remaining": "many", "x_ratelimit_reset": "10"},
        {"x_ratelimit_remaining": "9" * 5000, "x_ratelimit_reset": "10"},
        {"x_ratelimit_remaining": "3", "x_ratelimit_reset": "tomorrow"},
        {"x_ratelimit_remaining": "3", "x_ratelimit_reset": "9" * 15},
        {"x_ratelimit_remaining": "3", "x_ratelimit_reset": str(int(FURTHEST.total_seconds()) + 1)},
        {"ratelimit": "50"},
        {"ratelimit": '"default";r=x'},
        {"retry_after": "20"},
    ],
)
def test_headers_that_say_nothing_are_no_quota(headers: dict[str, str]) -> None:
    assert read_quota(respond(**headers), NOW) is None


NAMES = ("limit", "remaining", "reset")
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30) | st.integers().map(str)


@given(st.lists(st.tuples(st.sampled_from(NAMES), TEXTS), max_size=3), TEXTS, TEXTS)
def test_no_header_keeps_an_answer_from_being_read(pairs: list[tuple[str, str]], field: str, wait: str) -> None:
    headers = {f"x-ratelimit-{name}": text for name, text in pairs} | {"ratelimit": field, "retry-after": wait}
    quota = read_quota(httpx.Response(200, headers=headers), NOW)
    assert quota is None or (quota.remaining >= 0 and NOW <= quota.resets_at <= NOW + FURTHEST)


def shopify(cost: object) -> httpx.Response:
    return httpx.Response(200, json={"data": {}, "extensions": {"cost": cost}})


def test_the_points_of_shopify_are_queries_of_the_same_cost() -> None:
    bucket = {"maximumAvailable": 2000.0, "currentlyAvailable": 1500.0, "restoreRate": 100.0}
    known = {"requestedQueryCost": 250, "actualQueryCost": 50, "throttleStatus": bucket}
    assert of_shopify(shopify(known), NOW) == left(30, 5, 40)
    throttled = {"requestedQueryCost": 250, "actualQueryCost": None, "throttleStatus": bucket}
    assert of_shopify(shopify(throttled), NOW) == left(6, 5, 8)


@pytest.mark.parametrize("cost", [None, {}, {"throttleStatus": {"restoreRate": 0}}, "x", {"throttleStatus": None}])
def test_an_answer_of_shopify_without_points_is_no_quota(cost: object) -> None:
    assert of_shopify(shopify(cost), NOW) is None
    assert of_shopify(httpx.Response(502, content=b"<html>"), NOW) is None


def test_a_grant_for_events_is_at_least_its_floor() -> None:
    grant = Stripe.capabilities.grant
    assert grant is not None
    assert [grant.amount(events) for events in (0, 20, 21, 1000)] == [10_000, 10_000, 10_500, 500_000]
    assert (grant.pool, grant.read_on) == (Pool.ACCOUNT, date(2026, 11, 27))


def test_a_platform_of_stripe_reads_from_a_pool() -> None:
    known = Stripe(StripeOptions(api_key=Secret("sk_live_x"), connect=True)).capabilities.grant
    assert known is not None
    assert known.pool is Pool.PLATFORM


@pytest.mark.parametrize(
    "values",
    [
        {"requests": 0, "period": timedelta(hours=1)},
        {"requests": 1, "period": timedelta(0)},
        {"requests": 1, "period": timedelta(hours=1), "per_event": 5},
        {"requests": 1, "period": timedelta(hours=1), "types": ("a",)},
        {"requests": 1, "period": timedelta(hours=1), "per_event": -5, "types": ("a",)},
    ],
)
def test_what_is_no_grant_cannot_be_built(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is none|name both"):
        Grant(**values)  # type: ignore[arg-type]


def test_a_budget_of_an_older_provider_is_its_grant() -> None:
    def known(**values: object) -> Capabilities:
        shown = {name: getattr(Stripe.capabilities, name) for name in ("coverage", "basis", "rendering")}
        return Capabilities(**shown, signature_headers=("x",), **values)  # type: ignore[arg-type]

    budget = ReadBudget(requests=7, period=timedelta(hours=1))
    assert known(budget=budget).effective_grant == Grant(requests=7, period=timedelta(hours=1))
    assert known(budget=budget, grant=Stripe.capabilities.grant).effective_grant is Stripe.capabilities.grant
    assert known().effective_grant is None
