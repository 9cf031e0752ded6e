"""Providers are found strictly and built from plain options without ever showing a secret."""

from datetime import timedelta

import httpx
import pytest

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.auth import BearerAuth
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.kit.errors import OptionsInvalid
from gapless_reconcilers.providers.stripe import Stripe

KEY = Secret("sk_live_do_not_show")


def test_every_module_beside_the_kit_is_a_provider_that_loads() -> None:
    assert "stripe" in registry.kinds()
    for kind in registry.kinds():
        assert registry.load(kind).kind == kind


def test_unknown_kind_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(OptionsInvalid, match=r"no provider 'strip' \(did you mean 'stripe'\?\); known are: .*stripe"):
        registry.load("strip")


def test_secret_options_are_told_to_settings() -> None:
    assert registry.secret_fields("stripe") == {"api_key": "one", "webhook_secret": "many"}


@pytest.mark.parametrize("secret", [Secret("whsec_a"), [Secret("whsec_a")], (Secret("whsec_a"),)])
def test_one_secret_or_several_may_be_given_where_several_may_stand(secret: object) -> None:
    provider = registry.build("stripe", {"api_key": KEY, "webhook_secret": secret})
    assert isinstance(provider, Stripe)
    assert isinstance(provider, Provider)
    assert provider.options.webhook_secret == (Secret("whsec_a"),)


@pytest.mark.parametrize("written", ["5m", "300s", "300 s", 300, 300.0, timedelta(minutes=5)])
def test_duration_may_be_written_for_people(written: object) -> None:
    provider = registry.build("stripe", {"api_key": KEY, "tolerance": written})
    assert isinstance(provider, Stripe)
    assert provider.options.tolerance == timedelta(minutes=5)


def test_given_table_is_not_changed() -> None:
    table: dict[str, object] = {"api_key": KEY, "webhook_secret": Secret("whsec_a"), "tolerance": "5m"}
    before = dict(table)
    registry.build("stripe", table)
    assert table == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"options of provider 'stripe': .*missing required field `api_key`"),
        (
            {"api_kye": KEY},
            r"has no option 'api_kye' \(did you mean 'api_key_\w+'\?\); its options are: api_base, api_key_env, api_",
        ),
        ({"api_key": "sk_live_do_not_show"}, r"Expected `Secret`, got `str` - at `\$.api_key`"),
        ({"api_key": KEY, "webhook_secret": ["whsec_do_not_show"]}, r"Expected `Secret`, .* `\$.webhook_secret\[0\]`"),
        ({"api_key": KEY, "page_limit": 500}, r"<= 100 - at `\$.page_limit`"),
        ({"api_key": KEY, "livemode": "yes"}, r"Expected `bool`, got `str` - at `\$.livemode`"),
        ({"api_key": KEY, "tolerance": "5 weeks"}, r"duration - at `\$.tolerance`"),
        ({"api_key": KEY, "tolerance": True}, r"duration`, got `bool` - at `\$.tolerance`"),
    ],
)
def test_wrong_options_name_the_key_and_show_no_value(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionsInvalid, match=message) as caught:
        registry.build("stripe", options)
    assert "do_not_show" not in str(caught.value)


def test_built_provider_shows_no_secret() -> None:
    provider = registry.build("stripe", {"api_key": KEY, "webhook_secret": Secret("whsec_do_not_show")})
    assert "do_not_show" not in repr(vars(provider)) + repr(provider.auth()) + provider.budget_scope()


def test_bearer_token_is_added_by_auth_alone() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200)

    with httpx.Client(transport=httpx.MockTransport(answer), auth=BearerAuth(KEY)) as client:
        client.get("https://api.example/")
    assert seen == ["Bearer sk_live_do_not_show"]
