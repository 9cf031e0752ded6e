"""PayPal's format for the fake provider: a token, a list with escaped addresses, webhooks signed by certificate."""

import json
import random
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Any
from urllib.parse import urlencode

from gapless_reconcilers.kit.contract import OWN_STREAM, Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, ListSemantics, Query
from gapless_reconcilers.testing.fake.formats.plain import as_json, moment, written
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

SEMANTICS = ListSemantics(
    order=Order.NEWEST_FIRST,
    resolution=timedelta(milliseconds=1),
    history=timedelta(days=30),
    default_limit=10,
    most_per_page=300,
)
EVENTS = "/v1/notifications/webhooks-events"
CERTIFICATES = "/v1/notifications/certs/"
TOKEN = "/v1/oauth2/token"  # noqa: S105 - a path


@dataclass(frozen=True, slots=True, kw_only=True)
class PayPalFormat:
    """One REST app. `sign` signs bytes with the key of `certificate` (PEM)."""

    sign: Callable[[bytes], bytes]
    certificate: bytes
    base: str
    """The address of the API, for the links of the list."""
    semantics: ListSemantics = SEMANTICS
    token: str = "A21_fake"  # noqa: S105 - of a fake
    webhook_id: str = "WH-fake"

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Such as `WH-2WR32451HC0233532-67976317FL4543714`."""
        return f"WH-{chance.getrandbits(64):017X}-{chance.getrandbits(64):017X}"

    def object_id(self, number: int, event_type: str) -> str:  # noqa: ARG002
        """The id of a sale."""
        return f"{number:017}"

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the token is ours. Certificates, and requesting a token, need none."""
        is_open = request.path.startswith(CERTIFICATES) or request.path == TOKEN
        return is_open or request.headers.get("authorization") == f"Bearer {self.token}"

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        """Return a token, a certificate, a page, or the subscriptions."""
        if request.path.startswith(CERTIFICATES):
            return ApiAnswer(status=200, body=self.certificate, headers={"Content-Type": "text/plain"})
        if request.path == TOKEN and request.method == "POST":
            return as_json({"access_token": self.token, "token_type": "Bearer", "expires_in": 32400})
        if request.path == EVENTS:
            return self._page(request, state)
        if request.path == "/v1/notifications/webhooks":
            return as_json({"webhooks": [self._subscription(each) for each in state.endpoints]})
        return self.refuse(404)

    def refuse(self, status: int) -> ApiAnswer:
        """An error of PayPal's form."""
        return as_json({"name": "RATE_LIMIT_REACHED" if status == 429 else "ERROR", "debug_id": "0"}, status)  # noqa: PLR2004

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:  # noqa: ARG002
        """The webhook: id, time, webhook id and the body's CRC are signed."""
        body = json.dumps(self.encode(event)).encode()
        time, transmission = written(now, "seconds"), f"69cd13f0-{event.number:012}"
        signed = f"{transmission}|{time}|{self.webhook_id}|{zlib.crc32(body)}".encode()
        signature = self.sign(signed if genuine else b"another" + signed)
        headers = {
            "content-type": "application/json",
            "paypal-transmission-id": transmission,
            "paypal-transmission-time": time,
            "paypal-transmission-sig": b64encode(signature).decode(),
            "paypal-cert-url": f"https://api.paypal.com{CERTIFICATES}CERT-1",
            "paypal-auth-algo": "SHA256withRSA",
        }
        return Message(headers=headers, body=body)

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        """Return the event as list and webhook have it."""
        own = f"https://api-m.paypal.com{EVENTS}/{event.key}"
        return {
            "id": event.key,
            "event_version": "1.0",
            "create_time": written(event.occurred_at),
            "resource_type": "sale",
            "event_type": event.type,
            "summary": "Payment completed for $ 0.48 USD",
            "resource": {"id": event.object_id, "state": "completed", "amount": {"total": "0.48", "currency": "USD"}},
            "links": [{"href": own, "rel": "self", "method": "GET"}],
        }

    def _page(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        end = moment(request.param("end_time"))
        query = Query(
            stream=OWN_STREAM,
            limit=max(1, int(request.param("page_size") or 10) - 1),  # pages may be shorter than requested
            start=moment(request.param("start_time")),
            end=end + self.semantics.resolution if end else None,
            after=request.param("index_id"),
        )
        listing = state.read(query)
        links = [{"href": f"{self.base}{EVENTS}", "rel": "self", "method": "GET"}]
        if listing.has_more:
            last = listing.events[-1]
            kept = {name: value for name, value in request.params if not name.startswith("index_")}
            place = {"move_to": "next", "index_time": written(last.occurred_at), "index_id": last.key}
            following = f"{self.base}{EVENTS}?{urlencode({**kept, **place})}"
            links.append({"href": escape(following), "rel": "next", "method": "GET"})
        rows = [self.encode(event) for event in listing.events]
        return as_json({"events": rows, "count": len(rows), "links": links})

    def _subscription(self, endpoint: FakeEndpoint) -> dict[str, Any]:
        types = [{"name": each} for each in endpoint.types]
        return {"id": self.webhook_id, "url": endpoint.url, "event_types": types}
