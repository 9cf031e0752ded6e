"""The fake's formats reproduce the recorded fixtures, row by row: the loss tests run against the vendor's form."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gapless_reconcilers.kit.pagination import require
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats import rest
from gapless_reconcilers.testing.fake.formats.github import GitHubFormat
from gapless_reconcilers.testing.fake.formats.paypal import PayPalFormat
from gapless_reconcilers.testing.fake.formats.standard_webhooks import StandardWebhooksFormat
from gapless_reconcilers.testing.fake.formats.telegram import TelegramFormat
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenario, make_request, read

FIXTURES = Path(__file__).parents[1] / "fixtures"
DECLARED = {
    "chargebee": rest.ChargebeeFormat,
    "gocardless": rest.GoCardlessFormat,
    "increase": rest.IncreaseFormat,
    "paddle": rest.PaddleFormat,
    "square": rest.SquareFormat,
    "workos": rest.WorkOSFormat,
}


def event_of(scenario: Scenario, at: int, object_id: str = "", number: int = 0) -> FakeEvent:
    """The fake's idea of the event that stands at `at` of the expected ones."""
    expected = scenario.expected[at]
    return FakeEvent(
        number=number,
        key=expected.key,
        type=expected.type,
        occurred_at=expected.occurred_at,
        visible_at=expected.occurred_at,
        stream="",
        object_id=object_id or expected.object_key or "",
    )


def first_page(scenario: Scenario) -> Any:
    return json.loads(scenario.pages[0].body)


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_vendors_rows_are_those_of_its_fixture(name: str) -> None:
    scenario = load_scenario(FIXTURES / "rest_list" / name)
    rows = require(first_page(scenario), scenario.records)
    objects = {"gocardless": "PM00AB12", "chargebee": "cus_7"}
    for at, row in enumerate(rows):
        shown = DECLARED[name]().encode(event_of(scenario, at, objects.get(name, "")))
        assert shown == row.get("event", row) if name == "chargebee" else shown == row


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_vendors_webhook_is_taken_as_its_fixture_is(name: str) -> None:
    scenario = load_scenario(FIXTURES / "rest_list" / name)
    url = "https://merchant.example/webhooks"
    endpoint = FakeEndpoint(number=0, url=url, secret=scenario.signing_secret, types=("*",), connect=False)
    event = event_of(scenario, 0, "obj_1")
    for is_genuine in (True, False):
        message = DECLARED[name]().message(event, endpoint, scenario.now, genuine=is_genuine)
        request = make_request(message.headers, message.body)
        if is_genuine:
            assert [one.key for one in read(scenario.provider(), scenario, request).events] == [event.key]
            theirs = {header for header, _ in scenario.webhook.headers}
            assert {header for header, _ in request.headers} == theirs
        else:
            with pytest.raises(Exception, match="secret"):
                read(scenario.provider(), scenario, request)


def test_githubs_deliveries_are_those_of_its_fixture() -> None:
    scenario = load_scenario(FIXTURES / "github")
    wire, opened = GitHubFormat(hook=292430182), event_of(scenario, 0, "7")
    assert wire.row(opened) == first_page(scenario)[0]
    assert wire.detail(opened) == json.loads(scenario.details[0])
    endpoint = FakeEndpoint(number=0, url="", secret=scenario.signing_secret, types=("*",), connect=False)
    message = wire.message(opened, endpoint, scenario.now, genuine=True)
    (event,) = read(scenario.provider(), scenario, make_request(message.headers, message.body)).events
    assert (event.key, event.type) == (opened.key, opened.type)


def test_paypals_events_are_those_of_its_fixture() -> None:
    scenario = load_scenario(FIXTURES / "paypal")
    wire = PayPalFormat(sign=lambda text: text, certificate=b"", base="https://api-m.paypal.com")
    assert wire.encode(event_of(scenario, 0, "80021663DE681814L")) == first_page(scenario)["events"][0]


def test_telegrams_updates_are_those_of_its_fixture() -> None:
    scenario = load_scenario(FIXTURES / "telegram")
    assert TelegramFormat().encode(event_of(scenario, 0, "42")) == first_page(scenario)["result"][0]


def test_a_sender_of_standard_webhooks_is_read() -> None:
    scenario = load_scenario(FIXTURES / "standard_webhooks")
    now = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)
    event = FakeEvent(
        number=0,
        key="msg_1",
        type="user.created",
        occurred_at=now - timedelta(seconds=9),
        visible_at=now,
        stream="",
        object_id="usr_1",
    )
    endpoint = FakeEndpoint(number=0, url="", secret=scenario.signing_secret, types=("*",), connect=False)
    message = StandardWebhooksFormat().message(event, endpoint, now, genuine=True)
    assert base64.b64decode(message.headers["webhook-signature"].removeprefix("v1,"))
    (got,) = read(scenario.provider(), scenario, make_request(message.headers, message.body), now).events
    assert (got.key, got.type, got.occurred_at) == (event.key, event.type, event.occurred_at)
    assert set(json.loads(message.body)) == set(json.loads(scenario.webhook.body))
