"""Routing: the rules of the safe first start, and the filters of destinations."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.bootstrap.destinations import make_destination
from gapless.deliver.routing import Destination, build_route, that_hear_webhooks
from gapless.destinations.contract import DestinationInvalid
from gapless.domain import ALL_TYPES, EventMode, Mode, Source, TypePatterns, Via, to_us
from gapless.settings import DestinationSettings
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.providers.telegram import Telegram, TelegramOptions

START = datetime(2026, 11, 1, tzinfo=UTC)
RECORDED_US = to_us(START + timedelta(days=30))
PROVIDER = Stripe(StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False))
SENDER: Any = object()  # routing never calls it


def destination(**changes: Any) -> Destination:
    return replace(make_destination(DestinationSettings(name="app"), 1, to_us(START), SENDER), **changes)


def source_in(mode: Mode = Mode.HYBRID, types: TypePatterns = ALL_TYPES) -> Source:
    return Source(id=1, name="acme", provider=PROVIDER, mode=mode, start=START, types=types)


def event(type_: str = "invoice.paid", after: timedelta = timedelta(days=1), **changes: Any) -> RemoteEvent:
    return RemoteEvent(key="evt_1", type=type_, occurred_at=START + after, payload=b"{}", **changes)


def owed_to(destinations: list[Destination], source: Source, event: RemoteEvent, via: Via) -> list[int]:
    return [owed.destination_id for owed in build_route(destinations)(source, event, via, RECORDED_US)]


@given(
    mode=st.sampled_from(Mode),
    via=st.sampled_from(Via),
    before=st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=3650)),
)
def test_nothing_before_the_sources_start_is_ever_owed(mode: Mode, via: Via, before: timedelta) -> None:
    everything = destination(via=frozenset(Via), since_us=0)
    assert owed_to([everything], source_in(mode), event(after=-before), via) == []


@given(via=st.sampled_from(Via), since=st.integers(0, 10**6), occurred=st.integers(0, 10**6))
def test_a_destination_owes_exactly_what_occurred_from_its_since_on(via: Via, since: int, occurred: int) -> None:
    one = destination(via=frozenset(Via), since_us=to_us(START) + since)
    found = owed_to([one], source_in(), event(after=timedelta(microseconds=occurred)), via)
    assert found == ([1] if occurred >= since else [])


@given(
    mode=st.sampled_from(Mode),
    type_=st.sampled_from(["invoice.paid", "charge.failed"]),
    listable=st.booleans(),
    stream=st.sampled_from(["", "acct_1"]),
)
def test_a_listed_event_is_owed_only_if_it_was_expected_or_the_source_is_polled(
    mode: Mode,
    type_: str,
    listable: bool,
    stream: str,
) -> None:
    of = source_in(mode, TypePatterns(("invoice.*",)))
    listed = event(type_, listable=listable, stream=stream)
    polled = mode is Mode.POLL and type_ == "invoice.paid"
    assert owed_to([destination()], of, listed, Via.LIST) == ([1] if polled or of.expects(listed) else [])


@pytest.mark.parametrize("mode", list(Mode))
def test_a_webhook_is_owed_even_if_it_was_not_expected(mode: Mode) -> None:
    assert owed_to([destination()], source_in(mode, TypePatterns(("charge.*",))), event(), Via.WEBHOOK) == [1]


def test_imported_events_are_owed_to_nobody_unless_wanted() -> None:
    assert owed_to([destination()], source_in(), event(), Via.IMPORT) == []
    assert owed_to([destination(via=frozenset({Via.IMPORT}))], source_in(), event(), Via.IMPORT) == [1]


def test_filling_gaps_takes_the_list_alone_and_waits() -> None:
    gaps = destination(via=frozenset({Via.LIST}), delay_us=90_000_000)
    assert owed_to([gaps], source_in(), event(), Via.WEBHOOK) == []
    (owed,) = build_route([gaps])(source_in(), event(), Via.LIST, RECORDED_US)
    assert owed.not_before_us == RECORDED_US + 90_000_000


def test_a_gap_is_not_filled_while_the_webhook_is_awaited() -> None:
    until_us = RECORDED_US + 50_000_000
    for delay_us, wanted_us in ((0, until_us), (90_000_000, RECORDED_US + 90_000_000)):
        gaps = destination(via=frozenset({Via.LIST}), delay_us=delay_us)
        (owed,) = build_route([gaps])(source_in(), event(), Via.LIST, RECORDED_US, until_us)
        assert owed.not_before_us == wanted_us


def test_a_handler_behind_us_does_not_wait_for_the_grace() -> None:
    (owed,) = build_route([destination()])(source_in(), event(), Via.LIST, RECORDED_US, RECORDED_US + 50_000_000)
    assert owed.not_before_us == RECORDED_US


def test_a_webhook_fills_the_gap_of_handlers_that_have_their_own() -> None:
    behind_us, gaps = destination(), destination(id=2, name="gaps", via=frozenset({Via.LIST}))
    reports = destination(id=3, name="reports", via=frozenset({Via.LIST}), receipts=True)
    assert that_hear_webhooks([behind_us, gaps, reports]) == {2}


def test_a_webhook_does_not_wait_for_the_delay() -> None:
    (owed,) = build_route([destination(delay_us=90_000_000)])(source_in(), event(), Via.WEBHOOK, RECORDED_US)
    assert owed.not_before_us == RECORDED_US


def test_sources_and_types_are_filters() -> None:
    wanting = [
        destination(id=4, types=TypePatterns(("charge.*",))),
        destination(id=3, types=TypePatterns(("invoice.*",))),
        destination(id=2, sources=frozenset({"other"})),
        destination(id=1, sources=frozenset({"acme", "other"})),
    ]
    assert owed_to(wanting, source_in(), event(), Via.WEBHOOK) == [1, 3]


@pytest.mark.parametrize("changes", [{"concurrency": 0}, {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}])
def test_a_destination_that_could_never_deliver_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DestinationInvalid, match=r'"app".*wanted'):
        destination(**changes)


LIVE = Stripe(StripeOptions(api_key=Secret("rk_live_1"), webhook_secret=(Secret("whsec_1"),)))
BOTH = frozenset(EventMode)


@pytest.mark.parametrize(
    ("livemode", "modes", "owed"),
    [
        (True, None, True),
        (False, None, False),
        (None, None, True),
        (False, BOTH, True),
        (True, BOTH, True),
        (True, frozenset({EventMode.TEST}), False),
        (False, frozenset({EventMode.TEST}), True),
        (None, frozenset({EventMode.TEST}), True),
    ],
)
def test_a_destination_takes_its_sources_mode_unless_it_names_modes(
    livemode: bool | None, modes: frozenset[EventMode] | None, *, owed: bool
) -> None:
    source = replace(source_in(), provider=LIVE)
    assert owed_to([destination(modes=modes)], source, event(livemode=livemode), Via.WEBHOOK) == [1] * owed


def test_a_provider_without_modes_always_matches() -> None:
    telegram = Telegram(TelegramOptions(token=Secret("1:a"), webhook_secret=(Secret("whsec_1"),)))
    source = replace(source_in(), provider=telegram)
    assert source.livemode is None
    one = destination(modes=frozenset({EventMode.LIVE}))
    assert owed_to([one], source, event(livemode=False), Via.WEBHOOK) == [1]


def test_a_destination_that_requires_it_is_owed_what_the_list_shows() -> None:
    made = [
        make_destination(DestinationSettings(name="app", require_listed=required), number, to_us(START), SENDER)
        for number, required in enumerate((True, False), 1)
    ]
    owed = build_route(made)(source_in(), event(), Via.WEBHOOK, RECORDED_US)
    assert {each.destination_id: each.until_listed for each in owed} == {1: True, 2: False}
