"""Amazon SNS: known answers, what is fetched and what never is, and the confirmation of a subscription."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gapless_reconcilers.kit.contract import NeedsEvidence, Reply
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, WebhookRefused
from gapless_reconcilers.providers.sns import Sns, SnsOptions
from gapless_reconcilers.testing.suite.scenario import Handshake, Scenario, load_scenario, make_request

FIXTURES = Path(__file__).parents[1] / "fixtures"
VECTORS = json.loads((FIXTURES / "vectors/sns/sns.json").read_text())
TOPIC = "arn:aws:sns:us-east-1:123456789012:MyTopic"
SCENARIO: Scenario = load_scenario(FIXTURES / "sns")


def answered(url: str, body: bytes, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=body, request=httpx.Request("GET", url))


def judge(vector: dict[str, Any]) -> tuple[Reply, list[str]]:
    """The reply, and what was fetched for it."""
    provider, fetched, found = Sns(SnsOptions(topic_arn=(TOPIC,))), list[str](), dict[str, httpx.Response]()
    request = make_request(vector["headers"], vector["body"].encode())
    while True:
        reply = provider.read_webhook(request, datetime.fromtimestamp(vector["now"], UTC), found)
        if isinstance(reply, Reply):
            return reply, fetched
        fetched.append(str(reply.request.url))
        body = vector["certificate"].encode() if reply.cache_key == vector["certificate_url"] else b"<ok/>"
        found[reply.cache_key] = answered(reply.cache_key, body)


@pytest.mark.parametrize("vector", VECTORS, ids=[each["id"] for each in VECTORS])
def test_known_answers_hold(vector: dict[str, Any]) -> None:
    if vector["expect"] == "refuse":
        with pytest.raises(SignatureInvalid):
            judge(vector)
        return
    reply, fetched = judge(vector)
    assert [event.key for event in reply.events] == vector["events"]
    confirms = "SubscriptionConfirmation" in vector["headers"]["x-amz-sns-message-type"]
    assert [url for url in fetched if "ConfirmSubscription" in url] == (
        [json.loads(vector["body"])["SubscribeURL"]] if confirms else []
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/a.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
        "https://evil.example/sns.us-east-1.amazonaws.com/a.pem",
        "https://sns.us-east-1.amazonaws.com@evil.example/a.pem",
        "https://s3.us-east-1.amazonaws.com/a.pem",
        "https://sns.s3-us-west-2.amazonaws.com/a.pem",  # a bucket of that name, of anybody
        "https://sns.s3.amazonaws.com/a.pem",
        "https://sns.s3-website-us-west-2.amazonaws.com/a.pem",
        "https://sns.us-east-1.amazonaws.com/a.pem?x",
        "https://sns.us-east-1.amazonaws.com/a.exe",
        "https://sns.us-east-1.amazonaws.com:8443/a.pem",
    ],
)
def test_nothing_is_fetched_from_another_place(url: str) -> None:
    body = {**json.loads(SCENARIO.webhook.body), "SigningCertURL": url}
    with pytest.raises(SignatureInvalid, match="no address of SNS"):
        SCENARIO.provider().read_webhook(
            msgspec.structs.replace(SCENARIO.webhook, body=json.dumps(body).encode()), SCENARIO.now
        )


def test_a_topic_of_somebody_else_is_refused_before_anything_is_fetched() -> None:
    provider = SCENARIO.provider(webhook_secrets=[TOPIC])
    with pytest.raises(SignatureInvalid, match=r"none of options\.topic_arn"):
        provider.read_webhook(SCENARIO.webhook, SCENARIO.now)


@pytest.mark.parametrize("planted", [b'"Message":"evil",', b'"Mess\\u0061ge":"evil",', b'"x":{"a":1,"a":2},'])
def test_no_value_is_put_before_a_signed_one_of_the_same_name(planted: bytes) -> None:
    """Readers of JSON differ about which of two members of one name counts: each would read another message."""
    body = SCENARIO.webhook.body.replace(b"{", b"{" + planted, 1)
    evidence = {url: answered(url, content) for url, content in SCENARIO.evidence.items()}
    with pytest.raises(SignatureInvalid, match="stands twice"):
        SCENARIO.provider().read_webhook(msgspec.structs.replace(SCENARIO.webhook, body=body), SCENARIO.now, evidence)


def confirmation() -> tuple[Handshake, dict[str, httpx.Response]]:
    (handshake,) = SCENARIO.handshakes
    url = json.loads(handshake.request.body)["SigningCertURL"]
    return handshake, {url: answered(url, SCENARIO.evidence[url])}


def test_a_subscription_is_confirmed_once_it_is_verified_and_its_answer_counts() -> None:
    handshake, found = confirmation()
    url = json.loads(handshake.request.body)["SubscribeURL"]
    asked = SCENARIO.provider().read_webhook(handshake.request, SCENARIO.now, found)
    assert isinstance(asked, NeedsEvidence)
    assert (str(asked.request.url), asked.max_age.total_seconds()) == (url, 0)
    with pytest.raises(MalformedWebhook, match="SNS answered 403"):
        SCENARIO.provider().read_webhook(handshake.request, SCENARIO.now, {**found, url: answered(url, b"", 403)})


def test_nothing_is_confirmed_if_a_person_shall_do_it() -> None:
    handshake, found = confirmation()
    provider = Sns(SnsOptions(topic_arn=SCENARIO.options["topic_arn"], confirm=False))  # type: ignore[arg-type]
    assert provider.read_webhook(handshake.request, SCENARIO.now, found) == Reply(events=())


def test_raw_delivery_is_refused() -> None:
    for body in (b'{"a":1}', b"text", b""):
        with pytest.raises(WebhookRefused, match="raw delivery"):
            SCENARIO.provider().read_webhook(
                make_request({"x-amz-sns-message-type": "Notification"}, body), SCENARIO.now
            )
