"""What a stranger's request may cost before it is verified: few signatures, short headers, no large copies."""

import hashlib
import tracemalloc
from pathlib import Path

import httpx
import msgspec
import pytest

from gapless.receive import webhook
from gapless.receive.webhook import Refusal
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import NeedsEvidence, Reply, Secret, WebhookRequest
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenarios, make_response

FIXTURES = Path(__file__).parents[2] / "fixtures"
SCENARIOS = {f"{kind}-{each.name}": each for kind in registry.kinds() for each in load_scenarios(FIXTURES / kind)}
SIGNATURE = hashlib.sha256(b"wrong").hexdigest()
SEVERAL = {
    b"stripe-signature": f"v1={SIGNATURE},".encode(),
    b"paddle-signature": f"h1={SIGNATURE};".encode(),
    b"workos-signature": f"v1={SIGNATURE}, ".encode(),
    b"webhook-signature": b"v1,d3Jvbmc= ",
    b"svix-signature": b"v1a,d3Jvbmc= ",
    b"x-pagerduty-signature": f"v1={SIGNATURE},".encode(),
    b"revolut-signature": f"v1={SIGNATURE},".encode(),
    b"calendly-webhook-signature": f"v1={SIGNATURE},".encode(),
}
"""The signature headers that take several signatures, and a wrong one of each."""
WITH_SEVERAL = [
    name
    for name, each in SCENARIOS.items()
    if name != "rest_list-gocardless" and any(header in SEVERAL for header, _ in each.webhook.headers)
]
"""GoCardless has one signature, in a header of a name that others use for several."""


def decide(scenario: Scenario, request: WebhookRequest) -> Reply | Refusal:
    provider, found = scenario.provider(), dict[str, httpx.Response]()
    while isinstance(reply := webhook.read_webhook(provider, request, scenario.now, found), NeedsEvidence):
        body = scenario.evidence.get(reply.cache_key)
        found[reply.cache_key] = make_response(reply.request, body or b"", 200 if body else 404)
    return reply


def signature_headers(scenario: Scenario) -> tuple[str, ...]:
    """Those without which a webhook is not the vendor's; some have the signature in the body or the address."""
    return scenario.provider().capabilities.signature_headers


def with_more(scenario: Scenario, count: int) -> WebhookRequest:
    """Return the genuine webhook with `count` wrong signatures before its own."""
    headers = tuple((name, SEVERAL.get(name, b"") * count + value) for name, value in scenario.webhook.headers)
    return msgspec.structs.replace(scenario.webhook, headers=headers)


def test_every_scheme_with_several_signatures_is_tried() -> None:
    wanted = {"stripe", "connect", "standard_webhooks", "paddle", "workos", "increase"}
    wanted |= {"bigcommerce", "clerk", "gitlab", "resend", "polar", "pagerduty", "revolut", "calendly"}
    assert {name.partition("-")[2] for name in WITH_SEVERAL} == wanted


@pytest.mark.parametrize("name", WITH_SEVERAL)
def test_sixteen_signatures_are_compared_and_more_are_refused(name: str) -> None:
    scenario = SCENARIOS[name]
    assert isinstance(decide(scenario, with_more(scenario, 14)), Reply)
    for count in (16, 64, 200_000):
        outcome = decide(scenario, with_more(scenario, count))
        assert isinstance(outcome, Refusal)
        assert (outcome.reason, outcome.bug) == ("bad_header", None)


@pytest.mark.parametrize("name", [name for name, each in SCENARIOS.items() if signature_headers(each)])
def test_a_huge_header_is_refused_and_never_copied(name: str) -> None:
    scenario = SCENARIOS[name]
    first = signature_headers(scenario)[0].encode()
    others = tuple(pair for pair in scenario.webhook.headers if pair[0] != first)
    decide(scenario, scenario.webhook)
    for filler in (b"v1=a,", b"h1=a;", b"v1a,YQ== ", b"9"):
        request = WebhookRequest(headers=(*others, (first, filler * (500_000 // len(filler)))), body=b"{}")
        tracemalloc.start()
        outcome = decide(scenario, request)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert isinstance(outcome, Refusal)
        assert 400 <= outcome.status < 500
        assert outcome.bug is None
        assert peak < 200_000


def test_a_body_that_paypal_is_asked_about_is_read_by_no_slow_decoder() -> None:
    """Nothing of it is verified when it is checked to be JSON, so that it must be quick whatever it is."""
    scenario = SCENARIOS["paypal-paypal"]
    provider = PayPal(PayPalOptions(client_id="c", client_secret=Secret("s"), webhook_id=("WH",), verify="postback"))
    odd = b'{"id":"WH-1","summary":"\\ud83d","n":[1,2.5e3,null]}'
    asked = webhook.read_webhook(provider, msgspec.structs.replace(scenario.webhook, body=odd), scenario.now)
    assert isinstance(asked, NeedsEvidence)
    assert asked.request.content.endswith(b',"webhook_event":' + odd + b"}")
    for body in (b"[" * 300_000, b"[" * 300_000 + b"]" * 300_000, b"[1,", b'{"a":NaN}', b'{},"auth_algo":"\\ud83d"'):
        refused = webhook.read_webhook(provider, msgspec.structs.replace(scenario.webhook, body=body), scenario.now)
        assert isinstance(refused, Refusal)
        assert refused.reason == "malformed"


def test_a_time_of_many_digits_is_refused() -> None:
    for name, header, value in (
        ("stripe-stripe", b"stripe-signature", b"t=" + b"9" * 4000 + b",v1=" + SIGNATURE.encode()),
        ("rest_list-paddle", b"paddle-signature", b"ts=" + b"9" * 4000 + b";h1=" + SIGNATURE.encode()),
    ):
        scenario = SCENARIOS[name]
        request = WebhookRequest(headers=((header, value),), body=b"{}")
        outcome = webhook.read_webhook(scenario.provider(), request, scenario.now)
        assert isinstance(outcome, Refusal)
        assert 400 <= outcome.status < 500
