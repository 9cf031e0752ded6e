"""Garbage at every provider's path: a refusal with a 4xx, never a crash, never an event."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.receive import webhook
from gapless.receive.webhook import Refusal
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import CannotRender, NeedsEvidence, RecordedEvent, Reply, Secret, WebhookRequest
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenarios, make_request, make_response

FIXTURES = Path(__file__).parents[1] / "fixtures"
SCENARIOS = {f"{kind}-{each.name}": each for kind in registry.kinds() for each in load_scenarios(FIXTURES / kind)}
DECLARED = [name for name, scenario in SCENARIOS.items() if scenario.kind == "rest_list"]
OWN = [name for name in SCENARIOS if name not in DECLARED]
"""Providers with code of their own; the declared ones share theirs, so that fewer examples of each suffice."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)
BODIES = st.one_of(
    st.binary(max_size=300),
    JSON.map(lambda value: json.dumps(value).encode(errors="surrogatepass")),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 50_000, b'"\\ud800"', b'{"id":"\\u0000"}', b"9" * 5000, b"\xff\xfe", b""]
    ),
)
TEXTS = st.text(max_size=60).map(lambda text: text.encode(errors="replace")) | st.binary(max_size=60)


def decide(scenario: Scenario, request: WebhookRequest) -> Reply | Refusal:
    """As the receiver decides, with the scenario's evidence; what nobody has is answered 404."""
    provider, found = scenario.provider(), dict[str, httpx.Response]()
    for _ in range(4):
        reply = webhook.read_webhook(provider, request, scenario.now, found)
        if not isinstance(reply, NeedsEvidence):
            return reply
        assert provider.capabilities.may_fetch(reply.request.url), reply.request.url
        body = scenario.evidence.get(reply.cache_key)
        found[reply.cache_key] = make_response(reply.request, body or b"", 200 if body else 404)
    raise AssertionError("it asks for evidence without end")


def refused(outcome: Reply | Refusal) -> bool:
    return isinstance(outcome, Refusal) and outcome.bug is None and 400 <= outcome.status < 500


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_a_stranger_makes_up_is_refused(name: str, data: st.DataObject) -> None:
    check_is_refused(SCENARIOS[name], data)


@pytest.mark.parametrize("name", DECLARED)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_what_a_stranger_makes_up_for_a_declared_vendor_is_refused(name: str, data: st.DataObject) -> None:
    check_is_refused(SCENARIOS[name], data)


def check_is_refused(scenario: Scenario, data: st.DataObject) -> None:
    capabilities = scenario.provider().capabilities
    names = [each.encode() for each in capabilities.kept_headers] or [b"content-type"]
    genuine = dict(scenario.webhook.headers)
    headers: list[tuple[bytes, bytes]] = []
    for each in names:
        value = data.draw(st.one_of(st.none(), TEXTS, st.just(genuine.get(each))), label=each.decode())
        headers += [] if value is None else [(each, value)]
    headers += data.draw(st.lists(st.tuples(st.sampled_from(names), TEXTS), max_size=2), label="again")
    body = data.draw(BODIES.filter(lambda body: body != scenario.webhook.body), label="body")
    request = WebhookRequest(headers=tuple(headers), body=body)
    outcome = decide(scenario, request)
    knows_the_secret = not capabilities.signs_body and (names[0], genuine.get(names[0])) in headers
    assert refused(outcome) or knows_the_secret, outcome


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=30, deadline=None)
@given(body=BODIES, key=st.text(max_size=30), kind_of_event=st.text(max_size=30))
def test_what_is_signed_and_makes_no_sense_is_read_or_refused(
    name: str, body: bytes, key: str, kind_of_event: str
) -> None:
    check_is_read_or_refused(SCENARIOS[name], body, key, kind_of_event)


@pytest.mark.parametrize("name", DECLARED)
@settings(max_examples=5, deadline=None)
@given(body=BODIES, key=st.text(max_size=30), kind_of_event=st.text(max_size=30))
def test_what_a_declared_vendor_signs_and_makes_no_sense_is_read_or_refused(
    name: str, body: bytes, key: str, kind_of_event: str
) -> None:
    check_is_read_or_refused(SCENARIOS[name], body, key, kind_of_event)


def check_is_read_or_refused(scenario: Any, body: bytes, key: str, kind_of_event: str) -> None:
    event = RecordedEvent(
        key=f"7:{key}", type=kind_of_event, occurred_at=scenario.now, stream="", payload=body, via="webhook"
    )
    try:
        message = scenario.provider().render(event, "https://x.example/", Secret(scenario.signing_secret), scenario.now)
        if isinstance(message, CannotRender):
            return
        request = make_request(message.headers, message.body)
    except Exception:  # noqa: BLE001 - only what the vendor could send is of interest here
        return
    outcome = decide(scenario, request)
    assert isinstance(outcome, Reply) or refused(outcome), outcome
