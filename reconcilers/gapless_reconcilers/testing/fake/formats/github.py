"""GitHub's log of deliveries for the fake provider: one hook of a repository, newest first, no filter by time.

The first endpoint of the fake is the hook. GitHub logs nothing while it is off: set the fault `unlogged` as well.
"""

import hashlib
import hmac
import json
import random
import uuid
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gapless_reconcilers.kit.contract import OWN_STREAM, Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, ListSemantics, Query, UnknownCursorError
from gapless_reconcilers.testing.fake.formats.plain import UNKNOWN_SECRET, as_json, written
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

SEMANTICS = ListSemantics(
    order=Order.NEWEST_FIRST,
    resolution=timedelta(seconds=1),
    history=timedelta(days=3),
    default_limit=30,
    most_per_page=100,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubFormat:
    """One hook. The key of an event is `<hook>:<guid>`."""

    semantics: ListSemantics = SEMANTICS
    token: str = "ghp_fake"  # noqa: S105 - of a fake
    repository: str = "acme/shop"
    hook: int = 77

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Return `<hook>:<guid>`."""
        return f"{self.hook}:{uuid.UUID(int=chance.getrandbits(128), version=4)}"

    def object_id(self, number: int, event_type: str) -> str:  # noqa: ARG002
        """Return a number, such as that of an issue."""
        return str(number)

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the bearer token is ours."""
        return request.headers.get("authorization") == f"Bearer {self.token}"

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        """Return the log, one delivery, a new attempt, or the hook."""
        hook = f"/repos/{self.repository}/hooks/{self.hook}"
        if not request.path.startswith(hook):
            return self.refuse(404)
        match request.method, request.path.removeprefix(hook).strip("/").split("/"):
            case "GET", ["deliveries"]:
                return self._log(request, state)
            case "GET", [""]:
                return self._hook(state)
            case method, ["deliveries", number, *rest]:
                return self._delivery(method, number, rest, state)
            case _:
                return self.refuse(404)

    def refuse(self, status: int) -> ApiAnswer:
        """An error of GitHub's form: the primary limit is a 403."""
        if status == 429:  # noqa: PLR2004
            limit = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"}
            return as_json({"message": "API rate limit exceeded"}, 403, limit)
        return as_json({"message": {401: "Bad credentials", 404: "Not Found"}.get(status, "Server Error")}, status)

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:  # noqa: ARG002
        """Return the delivery; only the body is signed."""
        body = json.dumps(self.payload(event)).encode()
        secret = endpoint.secret if genuine else UNKNOWN_SECRET
        headers = {
            "content-type": "application/json",
            "user-agent": "GitHub-Hookshot/fake",
            "x-github-delivery": event.key.partition(":")[2],
            "x-github-event": event.type.partition(".")[0],
            "x-github-hook-id": str(self.hook),
            "x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        }
        return Message(headers=headers, body=body)

    def payload(self, event: FakeEvent) -> dict[str, Any]:
        """Return the body of the webhook."""
        action = event.type.partition(".")[2]
        subject = {"issue": {"number": int(event.object_id), "title": "It does not listen"}}
        rest = {"repository": {"id": 11, "full_name": self.repository}, "sender": {"login": "ann"}}
        return {**({"action": action} if action else {}), **subject, **rest}

    def row(self, event: FakeEvent) -> dict[str, Any]:
        """Return the delivery as the log shows it."""
        name, _, action = event.type.partition(".")
        return {
            "id": self.delivery_id(event),
            "guid": event.key.partition(":")[2],
            "delivered_at": written(event.occurred_at, "seconds"),
            "redelivery": False,
            "duration": 0.27,
            "status": "OK",
            "status_code": 200,
            "event": name,
            "action": action or None,
            "installation_id": None,
            "repository_id": 11,
            "throttled_at": None,
        }

    def detail(self, event: FakeEvent) -> dict[str, Any]:
        """Return one delivery with its payload."""
        name = event.type.partition(".")[0]
        sent = {"headers": {"X-GitHub-Event": name}, "payload": self.payload(event)}
        return {**self.row(event), "url": "", "request": sent, "response": {"headers": {}, "payload": "ok"}}

    @staticmethod
    def delivery_id(event: FakeEvent) -> int:
        """Return a number beyond 53 bits, like GitHub's."""
        return 12_345_678_901_234_567 + event.number

    def _delivery(self, method: str, number: str, rest: list[str], state: FakeState) -> ApiAnswer:
        event = self._find(number, state)
        if event is None or (method, rest) not in (("GET", []), ("POST", ["attempts"])):
            return self.refuse(404)
        if method == "GET":
            return as_json(self.detail(event))
        state.push(event)
        return as_json({}, 202)

    def _find(self, number: str, state: FakeState) -> FakeEvent | None:
        listed = state.read(Query(stream=OWN_STREAM, limit=1 << 30)).events
        return next((event for event in listed if str(self.delivery_id(event)) == number), None)

    def _log(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        cursor, limit = request.param("cursor"), int(request.param("per_page") or self.semantics.default_limit)
        try:
            after = b64decode(cursor).decode() if cursor else None
            listing = state.read(Query(stream=OWN_STREAM, limit=limit, after=after))
        except UnknownCursorError:
            return self.refuse(404)
        link = {}
        if listing.has_more:
            following = b64encode(listing.events[-1].key.encode()).decode().replace("=", "%3D")
            link = {"Link": f'<https://api.github.com/x?per_page={limit}&cursor={following}>; rel="next"'}
        return as_json([self.row(event) for event in listing.events], headers=link)

    def _hook(self, state: FakeState) -> ApiAnswer:
        if not state.endpoints:
            return self.refuse(404)
        endpoint = state.endpoints[0]
        config = {"url": endpoint.url, "content_type": "json", "insecure_ssl": "0", "secret": "********"}
        hook = {"id": self.hook, "type": "Repository", "active": endpoint.enabled, "events": ["*"], "config": config}
        return as_json(hook)
