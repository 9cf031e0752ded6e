"""A sender of Standard Webhooks for the fake provider: webhooks without a list.

Written from the specification: nothing here imports the provider or the kit's scheme.
"""

import hashlib
import hmac
import json
import random
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless_reconcilers.kit.contract import Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, ListSemantics
from gapless_reconcilers.testing.fake.formats.plain import as_json, written
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

SEMANTICS = ListSemantics(
    order=Order.UNORDERED, resolution=timedelta(seconds=1), history=None, default_limit=1, most_per_page=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardWebhooksFormat:
    """One sender; secrets are `whsec_` and base64."""

    semantics: ListSemantics = SEMANTICS

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Return a message id."""
        return f"msg_{chance.getrandbits(96):024x}"

    def object_id(self, number: int, event_type: str) -> str:  # noqa: ARG002
        """Return any id."""
        return f"obj_{number}"

    def is_authorised(self, request: ApiRequest) -> bool:  # noqa: ARG002
        """There is nothing to ask."""
        return False

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:  # noqa: ARG002
        """Return 404: there is no API."""
        return self.refuse(404)

    def refuse(self, status: int) -> ApiAnswer:
        """Return an error."""
        return as_json({"error": status}, status)

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """Return the webhook; id, time and body are signed."""
        body = json.dumps(
            {"type": event.type, "timestamp": written(event.occurred_at), "data": {"id": event.object_id}}
        )
        key = b64decode(endpoint.secret.removeprefix("whsec_")) if genuine else b"nobody's"
        time = int(now.timestamp())
        signature = b64encode(hmac.new(key, f"{event.key}.{time}.{body}".encode(), hashlib.sha256).digest()).decode()
        headers = {
            "content-type": "application/json",
            "webhook-id": event.key,
            "webhook-timestamp": str(time),
            "webhook-signature": f"v1,{signature}",
        }
        return Message(headers=headers, body=body.encode())
