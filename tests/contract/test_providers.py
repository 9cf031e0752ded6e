"""Every provider keeps every rule of the contract, and every rule can be broken."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Rendering
from gapless_reconcilers.testing import suite
from gapless_reconcilers.testing.suite import provider_rules
from gapless_reconcilers.testing.suite.broken import BROKEN
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenario, load_scenarios

FIXTURES = Path(__file__).parents[1] / "fixtures"


@suite.parametrize(FIXTURES)
def test_provider_keeps_the_contract(rule: suite.Rule, scenario: Scenario) -> None:
    rule(scenario)


def rules_broken_by(scenario: Scenario) -> set[str]:
    broken = set()
    for name, rule in suite.rules_for(scenario).items():
        try:
            rule(scenario)
        except AssertionError:
            broken.add(name)
    return broken


@pytest.mark.parametrize("broken_type", BROKEN, ids=lambda broken_type: broken_type.__name__)
def test_broken_provider_breaks_its_rule_and_no_other(broken_type: Any) -> None:
    scenario = load_scenario(FIXTURES / getattr(broken_type, "scenario", broken_type.kind)).with_provider(broken_type)
    assert rules_broken_by(scenario) == {BROKEN[broken_type]}


def test_every_rule_has_a_broken_provider() -> None:
    assert set(BROKEN.values()) == set(suite.RULES)


@pytest.mark.parametrize("kind", registry.kinds())
def test_the_secret_of_which_several_may_live_is_the_one_that_signs_webhooks(kind: str) -> None:
    """`gapless event send` signs with it."""
    many = [name for name, number in registry.secret_fields(kind).items() if number == "many"]
    can_sign = registry.load(kind).capabilities.rendering is not Rendering.IMPOSSIBLE
    signed_with = {scenario.signed_with for scenario in load_scenarios(FIXTURES / kind)}
    assert many == (sorted(signed_with) if can_sign else [])


def test_provider_without_a_fixture_is_an_error_at_collection(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="every provider needs a fixture folder"):
        load_scenarios(tmp_path / "stripe")


def test_module_beside_the_provider_must_be_pure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = tmp_path / "impure_vendor"
    vendor.mkdir()
    (vendor / "__init__.py").write_text("from impure_vendor.provider import PROVIDER\n")
    (vendor / "provider.py").write_text(
        "from gapless_reconcilers.providers.stripe import Stripe\nclass Impure(Stripe): ...\nPROVIDER = Impure\n"
    )
    (vendor / "listing.py").write_text("import os\n")
    monkeypatch.syspath_prepend(tmp_path)
    provider_type = importlib.import_module("impure_vendor").PROVIDER
    with pytest.raises(AssertionError, match=r"impure_vendor\.listing imports os"):
        provider_rules.check_is_pure(load_scenario(FIXTURES / "stripe").with_provider(provider_type))
