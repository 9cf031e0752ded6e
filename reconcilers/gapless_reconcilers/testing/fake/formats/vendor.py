"""The common parts of formats whose webhooks have headers that depend on the event, or whose pages have headers."""

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from gapless_reconcilers.kit.contract import OWN_STREAM, Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, Query, UnknownCursorError
from gapless_reconcilers.testing.fake.formats.plain import (
    UNKNOWN_SECRET,
    BadRequestError,
    PlainFormat,
    as_json,
)
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

NEWEST, OLDEST = Order.NEWEST_FIRST, Order.OLDEST_FIRST
FOREVER: Final = 10_000
"""Days: longer than any test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorFormat(PlainFormat):
    """A vendor whose webhook has headers that depend on the event, or whose pages have headers."""

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        secret = endpoint.secret if genuine else UNKNOWN_SECRET
        body = json.dumps(self.signed_body(event, secret, now)).encode()
        headers = {**self.carried(event), **self.sign_event(event, body, secret, endpoint, now)}
        return Message(headers={"content-type": "application/json", **headers}, body=body)

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        if (request.method, request.path) != self.listing:
            return self.refuse(404)
        try:
            listing = self.read(request, state)
        except (BadRequestError, UnknownCursorError):
            return self.refuse(400)
        return as_json(self.page(listing, request), headers=self.page_headers(listing, request))

    def read(self, request: ApiRequest, state: FakeState) -> Listing:
        """Return the rows that were asked for."""
        return state.read(self.query(request))

    def signed_body(self, event: FakeEvent, secret: str, now: datetime) -> Any:  # noqa: ARG002
        """Return the body, which may have its signature inside."""
        return self.body(event)

    def carried(self, event: FakeEvent) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers that name the event."""
        return {}

    def sign_event(
        self,
        event: FakeEvent,  # noqa: ARG002
        body: bytes,
        secret: str,
        endpoint: FakeEndpoint,
        now: datetime,
    ) -> Mapping[str, str]:
        """Return the headers with the signature of `body`."""
        return self.sign(body, secret, endpoint, now)

    def page_headers(self, listing: Listing, request: ApiRequest) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers of a page."""
        return {}

    def skipped(self, state: FakeState, skip: int, limit: int) -> Listing:
        """Return `limit` rows after the first `skip`."""
        query = Query(stream=OWN_STREAM, limit=skip + limit)
        listing = state.read(query)
        return replace(listing, query=query, events=listing.events[skip:])


def standard_headers(event: FakeEvent, body: bytes, key: bytes, now: datetime) -> Mapping[str, str]:
    """Return the headers of Standard Webhooks."""
    time = str(int(now.timestamp()))
    mac = hmac.new(key, f"{event.key}.{time}.".encode() + body, hashlib.sha256).digest()
    return {"webhook-id": event.key, "webhook-timestamp": time, "webhook-signature": f"v1,{b64encode(mac).decode()}"}
