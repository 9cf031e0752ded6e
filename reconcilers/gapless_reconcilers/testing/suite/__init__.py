"""The contract of a provider as rules that a test can run.

    from gapless_reconcilers.testing import suite

    @suite.parametrize(Path("tests/fixtures"))
    def test_provider_keeps_the_contract(rule, scenario):
        rule(scenario)

Each rule takes a `Scenario` and raises `AssertionError` with a sentence. `suite.broken` has a
provider for each rule that breaks only this one: a rule that cannot fail proves nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import ConsumesEvents
from gapless_reconcilers.testing.suite.list_rules import (
    check_batches_are_acknowledged,
    check_detail_gives_event,
    check_grant_is_listed,
    check_odd_field_is_unread,
    check_odd_row_is_set_aside,
    check_other_cuts_differ,
    check_pages_give_expected,
    check_quota_is_read_from_anything,
    check_shape_is_never_guessed,
    check_statuses,
    check_walk_ends,
    check_walk_passes_old_rows,
    check_window_is_kept,
)
from gapless_reconcilers.testing.suite.provider_rules import (
    check_is_pure,
    check_modes_are_named,
    check_same_identity,
    check_same_stream,
    check_secrets_are_hidden,
)
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenarios
from gapless_reconcilers.testing.suite.webhook_rules import (
    check_any_live_secret,
    check_carried_secrets_are_not_kept,
    check_evidence_is_allowed,
    check_fits_limit,
    check_forgery_is_refused,
    check_garbage_is_refused,
    check_handshakes_are_answered,
    check_headers_are_rendered,
    check_methods_carry_no_events,
    check_refusals_are_the_vendors,
    check_rendering_is_accepted,
    check_secrets_are_offered_in_handshakes,
)

if TYPE_CHECKING:
    import pytest

Rule = Callable[[Scenario], None]


def parametrize(fixtures: Path, kinds: Iterable[str] | None = None) -> "pytest.MarkDecorator":
    """Return a pytest mark that gives a test every `(rule, scenario)` of `kinds`, or of all known kinds.

    Raises `FileNotFoundError` at collection for a kind that has no scenario in `fixtures/<kind>`.
    """
    import pytest  # noqa: PLC0415 - needed by tests alone

    scenarios = [one for kind in kinds or registry.kinds() for one in load_scenarios(fixtures / kind)]
    cases = [
        pytest.param(rule, scenario, id=f"{scenario.kind}-{scenario.name}-{name}")
        for scenario in scenarios
        for name, rule in rules_for(scenario).items()
    ]
    return pytest.mark.parametrize(("rule", "scenario"), cases)


def rules_for(scenario: Scenario) -> dict[str, Rule]:
    """Return the rules for the scenario's provider: those about lists only if it has a list."""
    consumes = isinstance(scenario.provider(), ConsumesEvents)
    applies = dict.fromkeys(LIST_RULES, scenario.lists) | {"batches_are_acknowledged": consumes}
    return {name: rule for name, rule in RULES.items() if applies.get(name, True)}


RULES: dict[str, Rule] = {
    "same_identity": check_same_identity,
    "same_stream": check_same_stream,
    "modes_are_named": check_modes_are_named,
    "any_live_secret": check_any_live_secret,
    "forgery_is_refused": check_forgery_is_refused,
    "garbage_is_refused": check_garbage_is_refused,
    "fits_limit": check_fits_limit,
    "methods_carry_no_events": check_methods_carry_no_events,
    "refusals_are_the_vendors": check_refusals_are_the_vendors,
    "handshakes_are_answered": check_handshakes_are_answered,
    "secrets_are_offered_in_handshakes": check_secrets_are_offered_in_handshakes,
    "carried_secrets_are_not_kept": check_carried_secrets_are_not_kept,
    "evidence_is_allowed": check_evidence_is_allowed,
    "pages_give_expected": check_pages_give_expected,
    "detail_gives_event": check_detail_gives_event,
    "batches_are_acknowledged": check_batches_are_acknowledged,
    "walk_ends": check_walk_ends,
    "walk_passes_old_rows": check_walk_passes_old_rows,
    "other_cuts_differ": check_other_cuts_differ,
    "grant_is_listed": check_grant_is_listed,
    "quota_is_read_from_anything": check_quota_is_read_from_anything,
    "window_is_kept": check_window_is_kept,
    "odd_row_is_set_aside": check_odd_row_is_set_aside,
    "odd_field_is_unread": check_odd_field_is_unread,
    "statuses": check_statuses,
    "shape_is_never_guessed": check_shape_is_never_guessed,
    "secrets_are_hidden": check_secrets_are_hidden,
    "is_pure": check_is_pure,
    "rendering_is_accepted": check_rendering_is_accepted,
    "headers_are_rendered": check_headers_are_rendered,
}
"""Every rule by its name. They call the provider directly; the tests of the daemon go through engine and store."""
LIST_RULES = frozenset(
    (
        "same_identity",
        "pages_give_expected",
        "detail_gives_event",
        "walk_ends",
        "walk_passes_old_rows",
        "other_cuts_differ",
        "grant_is_listed",
        "quota_is_read_from_anything",
        "window_is_kept",
        "odd_row_is_set_aside",
        "odd_field_is_unread",
        "statuses",
        "shape_is_never_guessed",
    )
)
"""The rules that need a list."""
