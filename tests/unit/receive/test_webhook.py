"""Reading one webhook: refused for a closed set of reasons, or events to record together."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import Mode, Source, Via, to_us
from gapless.receive.quarantine import has_signature, refused_row, request_of
from gapless.receive.webhook import REASONS, Refusal, header_names, kept_headers, read_webhook, sightings
from gapless_reconcilers.kit.contract import RemoteEvent, Reply, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import WebhookRefused
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STRIPE = Stripe(StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False))
SOURCE = Source(id=7, name="acme", provider=STRIPE, mode=Mode.HYBRID, start=NOW - timedelta(days=1))
EMPTY = WebhookRequest(headers=(), body=b"")


class Raising(Stripe):
    """A provider that answers every webhook with one error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(StripeOptions(api_key=Secret("rk_test_1"), livemode=False))
        self.error = error

    def read_webhook(self, request: Any, now: Any, evidence: Any = None) -> Reply:  # noqa: ARG002 - the contract's names
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason", "status"),
    [
        (WebhookRefused("said", reason="stale", status=401), "stale", 401),
        (WebhookRefused("said", reason="never heard of"), "other", 400),
        (WebhookRefused("said", reason="malformed", status=500), "malformed", 400),
        (WebhookRefused("said", reason="malformed", status=200), "malformed", 400),
    ],
)
def test_a_refusal_has_a_known_reason_and_a_4xx(error: WebhookRefused, reason: str, status: int) -> None:
    refusal = read_webhook(Raising(error), EMPTY, NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.status, refusal.detail) == (reason, status, "said")
    assert refusal.bug is None


@pytest.mark.parametrize("error", [KeyError("whsec_1"), RecursionError(), ValueError("body")])
def test_a_bug_of_a_provider_is_a_refusal_that_shows_nothing_of_the_request(error: Exception) -> None:
    refusal = read_webhook(Raising(error), EMPTY, NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.status, refusal.bug) == ("internal", 400, error)
    assert refusal.detail == f"{type(error).__name__} in provider stripe"


def test_every_reason_of_stripe_is_in_the_closed_set() -> None:
    bad = [
        WebhookRequest(headers=(), body=b""),
        WebhookRequest(headers=((b"stripe-signature", b"t=1,v1=00"),) * 2, body=b""),
        WebhookRequest(headers=((b"stripe-signature", b"x"),), body=b""),
        WebhookRequest(headers=((b"stripe-signature", b"t=1,v1=00"),), body=b""),
    ]
    refusals = [read_webhook(STRIPE, request, NOW) for request in bad]
    assert [r.reason for r in refusals if isinstance(r, Refusal)] == [
        "no_signature",
        "duplicate_header",
        "bad_header",
        "signature",
    ]
    assert all(r.reason in REASONS for r in refusals if isinstance(r, Refusal))


def test_all_events_of_a_webhook_share_its_body_and_are_numbered() -> None:
    body = b"{}"
    events = tuple(RemoteEvent(key=f"e{n}", type="t", occurred_at=NOW, payload=b"x") for n in range(3))
    seen = sightings(SOURCE, Reply(events=events), [5, 5, 6], body=body, headers=None, seen_us=to_us(NOW))
    assert [(s.item, s.stream_id, s.event.key) for s in seen] == [(0, 5, "e0"), (1, 5, "e1"), (2, 6, "e2")]
    assert all(s.body is body and s.via is Via.WEBHOOK and s.cause is None for s in seen)


def test_only_signature_headers_are_kept() -> None:
    pairs = [(b"authorization", b"Bearer x"), (b"stripe-signature", b"t=1\xff"), (b"cookie", b"y")]
    kept = kept_headers(pairs, header_names(STRIPE))
    assert kept is not None
    assert json.loads(kept) == {"stripe-signature": "t=1\xff"}
    assert kept_headers(pairs[:1], header_names(STRIPE)) is None


@given(
    values=st.lists(st.binary(max_size=50), max_size=3),
    others=st.lists(st.tuples(st.sampled_from([b"cookie", b"host"]), st.binary(max_size=9)), max_size=3),
    body=st.binary(max_size=200),
    detail=st.text(max_size=1_000),
)
def test_what_is_quarantined_is_judged_again_as_it_was(
    values: list[bytes], others: list[tuple[bytes, bytes]], body: bytes, detail: str
) -> None:
    request = WebhookRequest(headers=(*others, *((b"stripe-signature", value) for value in values)), body=body)
    row = refused_row(SOURCE, request, Refusal(reason="signature", detail=detail), to_us(NOW))
    again = request_of(row)
    assert again.body == body
    assert [value for name, value in again.headers] == values
    assert len(row.detail) <= 500
    assert "\0" not in row.detail
    assert "\0" not in row.headers
    assert has_signature(request, STRIPE) == bool(values)
    first, second = read_webhook(STRIPE, request, NOW), read_webhook(STRIPE, again, NOW)
    assert isinstance(first, Refusal)
    assert isinstance(second, Refusal)
    assert (first.reason, first.status) == (second.reason, second.status)
