"""The consumer of the demo: it checks the signature of every attempt, keeps its idempotency id, and fails at times."""

import base64
import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest

TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAttempt:
    """One delivery attempt with a valid signature."""

    at: datetime
    key: str
    idempotency_id: str
    via: str
    accepted: bool


@dataclass(slots=True, kw_only=True)
class Consumer:
    """A handler as a merchant would write one. `failure_rate` is the share of attempts that it answers 503."""

    secret: str = field(repr=False)
    clock: Callable[[], datetime]
    chance: Random
    failure_rate: float = 0.05
    attempts: defaultdict[str, list[ReceivedAttempt]] = field(default_factory=lambda: defaultdict(list))
    """By the provider's event id, in order of arrival."""
    accepted: dict[str, ReceivedAttempt] = field(default_factory=dict)
    """The first attempt of each event that was answered 200."""
    refused: int = 0
    """Requests with an invalid signature."""

    async def answer(self, request: ApiRequest) -> ApiAnswer:
        """Return 200 if the event is accepted, 503 for a failure by chance, 401 for a bad signature."""
        now = self.clock()
        if not is_signed(request.headers, request.body, self.secret, now):
            self.refused += 1
            return ApiAnswer(status=401, body=b"")
        key = str(json.loads(request.body)["id"])
        accepted = self.chance.random() >= self.failure_rate
        attempt = ReceivedAttempt(
            at=now,
            key=key,
            idempotency_id=request.headers.get("idempotency-key", ""),
            via=request.headers.get("gapless-via", ""),
            accepted=accepted,
        )
        self.attempts[key].append(attempt)
        if accepted:
            self.accepted.setdefault(key, attempt)
        return ApiAnswer(status=200 if accepted else 503, body=b"")


def is_signed(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> bool:
    """Return True if the request carries a valid Standard Webhooks signature.

    Written independently of the code that signs. Source: the Standard Webhooks specification, version 1.0.0,
    read November 2026.
    """
    message_id, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent_at.isdecimal() or abs(now.timestamp() - int(sent_at)) > TOLERANCE.total_seconds():
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((message_id.encode(), sent_at.encode(), body))
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(each, expected) for each in signatures)
