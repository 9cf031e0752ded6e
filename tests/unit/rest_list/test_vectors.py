"""Known answers: webhooks of each vendor, genuine and not, judged as its own library or its documentation judges them.

Every secret and id in `fixtures/vectors` is made up. `why` says what is wrong with a webhook that must be refused, or
which library has confirmed it. Their bodies are not always of the vendor's shape, so only the signature is judged, and
the answer to a handshake.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from declared import WINDOW, vendor_of

from gapless_reconcilers.kit.errors import SignatureInvalid, WebhookRefused
from gapless_reconcilers.testing.suite.scenario import make_request

VECTORS = Path(__file__).parents[2] / "fixtures/vectors"
EVERY = [vector for path in sorted(VECTORS.glob("*.json")) for vector in json.loads(path.read_text())]
BATCHES = [vector for vector in EVERY if vector["id"] == "segment/hmac_sha1_hex/batch_first_event"]
ALL = [vector for vector in EVERY if vector not in BATCHES]


@pytest.mark.parametrize("vector", ALL, ids=[vector["id"] for vector in ALL])
def test_a_webhook_is_judged_as_the_vendor_judges_it(vector: dict[str, Any]) -> None:
    if vector["expect"] == "accept":
        judge(vector)
        return
    with pytest.raises(WebhookRefused):
        judge(vector)


def judge(vector: dict[str, Any]) -> None:
    """Verify the signature, or answer the handshake as it is documented. Raises `WebhookRefused`."""
    provider, now = vendor_of(vector), datetime.fromtimestamp(vector["now"], UTC)
    request = make_request(vector["headers"], vector["body"].encode(), method=vector["method"], query=vector["query"])
    assert provider.options.webhook is not None
    signature = provider.options.webhook.signature
    if not vector.get("handshake") and not signature.is_of_events:
        signature.verify(request, now)
        return
    answer = provider.read_webhook(request, now).answer
    wanted = vector.get("answer", {"status": answer.status, "body": answer.body.decode()})
    assert (answer.status, answer.body.decode()) == (wanted["status"], wanted["body"])


def test_of_segment_batches_are_refused_because_only_their_first_event_is_signed() -> None:
    (vector,) = BATCHES
    signature: Any = vendor_of(vector).options.webhook.signature  # type: ignore[union-attr]
    with pytest.raises(SignatureInvalid):
        signature.verify(make_request(vector["headers"], vector["body"].encode()), WINDOW.end)


def test_there_are_genuine_ones_and_others_of_each_vendor() -> None:
    verdicts: dict[str, set[str]] = {}
    for vector in ALL:
        verdicts.setdefault(vector["declared"], set()).add(vector["expect"])
    assert len(verdicts) > 45
    assert len(EVERY) >= 275  # with those of braintree, plaid, pubsub and sns, which have tests of their own: 302
    assert {name for name, found in verdicts.items() if len(found) < 2} <= {"event-grid"}
