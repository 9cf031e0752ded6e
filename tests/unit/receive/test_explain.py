"""The diagnosis that an operator reads of a refused webhook."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gapless.receive.diagnosis import diagnose
from gapless_reconcilers.kit.contract import RecordedEvent, Secret, WebhookMessage, WebhookRequest
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVENT = {
    "id": "evt_1", "type": "invoice.paid", "created": int(NOW.timestamp()), "livemode": True, "name": "Zoë",
    "data": {"object": {"id": "in_1"}},
}  # fmt: skip
AS_SENT = json.dumps(EVENT, ensure_ascii=False, separators=(",", ":")).encode()


def stripe(secret: str) -> Stripe:
    return Stripe(StripeOptions(api_key=Secret("sk_live_1"), webhook_secret=(Secret(secret),)))


OURS = "whsec_ours"
PROVIDERS = {"ours": stripe(OURS), "theirs": stripe("whsec_theirs")}


def signed(
    secret: str = OURS,
    *,
    at: datetime = NOW,
    body: bytes = AS_SENT,
) -> WebhookRequest:
    event = RecordedEvent(key="evt_1", type="invoice.paid", occurred_at=NOW, stream="", payload=AS_SENT, via="webhook")
    message = stripe(secret).render(event, "", Secret(secret), at)
    assert isinstance(message, WebhookMessage)
    headers = tuple((name.encode(), value.encode()) for name, value in message.headers.items())
    return WebhookRequest(headers=headers, body=body)


def why(request: WebhookRequest, now: datetime = NOW) -> str:
    return diagnose(PROVIDERS, "ours", request, now)


def test_what_verifies_once_its_secret_is_known_can_be_released() -> None:
    assert "gapless quarantine release" in why(signed())


def test_a_missing_header_is_named() -> None:
    assert "the header stripe-signature is missing" in why(WebhookRequest(headers=(), body=AS_SENT))


@pytest.mark.parametrize("late_s", [301, 420, 3_600, 86_400, 600_000])
def test_a_wrong_clock_is_reported_to_the_second(late_s: int) -> None:
    diagnosis = why(signed(at=NOW - timedelta(seconds=late_s)))
    seconds = int(diagnosis.split(" by ")[1].split()[0])
    assert diagnosis.endswith("our clock is ahead, or it was held up on the way")
    assert abs(seconds - (late_s - 300)) <= 1


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(EVENT).encode(),
        json.dumps(EVENT, indent=2).encode(),
        json.dumps(EVENT, ensure_ascii=False).encode(),
        AS_SENT + b"\n",
        AS_SENT + b"\r\n",
    ],
)
def test_a_body_that_was_put_differently_on_the_way_is_recognised(body: bytes) -> None:
    assert "let nothing between the provider and us rewrite bodies" in why(signed(body=body))


def test_an_endpoint_that_points_to_another_source_is_recognised() -> None:
    assert why(signed("whsec_theirs")) == "it is signed for source theirs: its endpoint points to the wrong path"


def test_a_forgery_gets_no_diagnosis() -> None:
    assert why(signed("whsec_strangers")) == ""
    assert why(signed(body=b"[" * 100_000)) == ""
