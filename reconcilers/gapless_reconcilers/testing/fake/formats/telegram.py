"""Telegram's Bot API for the fake provider: `getUpdates` returns updates and deletes those before its offset."""

import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gapless_reconcilers.kit.contract import OWN_STREAM, Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, ListSemantics, Query
from gapless_reconcilers.testing.fake.formats.plain import UNKNOWN_SECRET, as_json
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

SEMANTICS = ListSemantics(
    order=Order.OLDEST_FIRST,
    resolution=timedelta(seconds=1),
    history=timedelta(hours=24),
    default_limit=100,
    most_per_page=100,
)
FIRST = 70_001


@dataclass(slots=True, kw_only=True)
class TelegramFormat:
    """One bot. `forgotten`: updates below this number were acknowledged and are deleted."""

    semantics: ListSemantics = SEMANTICS
    token: str = "123456:fake"  # noqa: S105 - of a fake
    forgotten: int = field(default=0)

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Return the number of an update."""
        return str(FIRST + number)

    def object_id(self, number: int, event_type: str) -> str:  # noqa: ARG002
        """Return the id of a chat."""
        return "42"

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the path holds our token."""
        return request.path.startswith(f"/bot{self.token}/")

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        """Return the remaining updates, or the state of the webhook."""
        enabled = next((each for each in state.endpoints if each.enabled), None)
        match request.path.rpartition("/")[2]:
            case "getUpdates" if enabled is not None:
                return self.refuse(409)
            case "getUpdates":
                return self._updates(request, state)
            case "getWebhookInfo":
                left = self._left(state)
                info = {"url": enabled.url if enabled else "", "has_custom_certificate": False}
                return as_json({"ok": True, "result": {**info, "pending_update_count": len(left)}})
            case _:
                return self.refuse(404)

    def refuse(self, status: int) -> ApiAnswer:
        """Return an error of Telegram's form."""
        return as_json({"ok": False, "error_code": status, "description": f"refused with {status}"}, status)

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:  # noqa: ARG002
        """Return the update, with the secret in a header."""
        secret = endpoint.secret if genuine else UNKNOWN_SECRET
        headers = {"content-type": "application/json", "x-telegram-bot-api-secret-token": secret}
        return Message(headers=headers, body=json.dumps(self.encode(event)).encode())

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        """Return one update."""
        at, chat = int(event.occurred_at.timestamp()), {"id": int(event.object_id), "type": "private"}
        message = {"message_id": event.number + 1, "date": at, "chat": chat, "text": "hello"}
        return {"update_id": int(event.key), event.type: message}

    def _left(self, state: FakeState) -> list[FakeEvent]:
        listed = state.read(Query(stream=OWN_STREAM, limit=1 << 30)).events
        return [event for event in listed if int(event.key) >= self.forgotten]

    def _updates(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        self.forgotten = max(self.forgotten, int(request.param("offset") or 0))
        limit = int(request.param("limit") or self.semantics.default_limit)
        return as_json({"ok": True, "result": [self.encode(event) for event in self._left(state)[:limit]]})
