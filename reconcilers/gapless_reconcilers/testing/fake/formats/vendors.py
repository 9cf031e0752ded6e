"""The formats of further declared vendors that list their events, for the fake provider."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from gapless_reconcilers.kit.contract import OWN_STREAM
from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, ListSemantics, Query
from gapless_reconcilers.testing.fake.formats.plain import (
    BadRequestError,
    as_json,
    moment,
    written,
)
from gapless_reconcilers.testing.fake.formats.rest import base64_mac, hex_mac, semantics
from gapless_reconcilers.testing.fake.formats.vendor import FOREVER, NEWEST, OLDEST, VendorFormat
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint

DWOLLA: Final = semantics(NEWEST, 30, most=200, default=25)
COINBASE: Final = semantics(NEWEST, FOREVER, most=100, default=25)
MODERN_TREASURY: Final = semantics(OLDEST, FOREVER, most=100, default=25)
MAILGUN: Final = semantics(OLDEST, 3, most=300, default=100)
OKTA: Final = semantics(OLDEST, 90, most=1000, default=100)
TYPEFORM: Final = semantics(NEWEST, FOREVER, most=1000, default=25)
CHECKOUT: Final = semantics(NEWEST, 30, most=100, default=50)
TRELLO: Final = semantics(NEWEST, FOREVER, most=1000, default=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class DwollaFormat(VendorFormat):
    """Dwolla: a token, pages by offset, another name of the time in webhooks."""

    semantics: ListSemantics = DWOLLA
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.path == "/token" or request.headers.get("authorization") == f"Bearer {self.token}"

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        if request.path == "/token":
            return as_json({"access_token": self.token, "token_type": "bearer", "expires_in": 3600})
        return super(DwollaFormat, self).answer(request, state)

    def read(self, request: ApiRequest, state: FakeState) -> Listing:
        skip = int(request.param("offset") or 0)
        return self.skipped(state, skip, self.limit(request.param("limit")))

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        rows = [{**self.encode(event), "created": written(event.occurred_at)} for event in listing.events]
        return {"_links": {}, "_embedded": {"events": rows}, "total": 9}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        return {"id": event.key, "topic": event.type, "resourceId": event.object_id}

    def body(self, event: FakeEvent) -> Any:
        return {**self.encode(event), "timestamp": written(event.occurred_at)}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"X-Request-Signature-SHA-256": hex_mac(secret, body)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinbaseCommerceFormat(VendorFormat):
    """Coinbase Commerce: no filter by time; the list ends with an empty page."""

    semantics: ListSemantics = COINBASE
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.headers.get("x-cc-api-key") == self.token

    def query(self, request: ApiRequest) -> Query:
        limit = self.limit(request.param("limit"))
        return Query(stream=OWN_STREAM, limit=limit, after=request.param("starting_after"))

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        rows = [self.encode(event) for event in listing.events]
        return {"pagination": {"yielded": len(rows), "limit": listing.query.limit}, "data": rows}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        at = written(event.occurred_at)
        return {"id": event.key, "type": event.type, "created_at": at, "data": {"code": event.object_id}}

    def body(self, event: FakeEvent) -> Any:
        return {"id": f"att_{event.number}", "attempt_number": 1, "event": self.encode(event)}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"X-CC-Webhook-Signature": hex_mac(secret, body)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModernTreasuryFormat(VendorFormat):
    """Modern Treasury: both bounds are inclusive; the cursor is in a header."""

    semantics: ListSemantics = MODERN_TREASURY
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        pair = b64encode(f"{self.token}:{self.token}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {pair}"

    def query(self, request: ApiRequest) -> Query:
        end = moment(request.param("event_time_end"))
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("per_page")),
            start=moment(request.param("event_time_start")),
            end=end + self.semantics.resolution if end else None,
            after=request.param("after_cursor"),
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return [self.encode(event) for event in listing.events]

    def page_headers(self, listing: Listing, request: ApiRequest) -> Mapping[str, str]:  # noqa: ARG002
        return {"X-After-Cursor": listing.events[-1].key} if listing.has_more else {}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        resource, _, name = event.type.partition(".")
        row = {"id": event.key, "resource": resource, "event_name": name, "entity_id": event.object_id}
        return {**row, "event_time": written(event.occurred_at), "data": {"id": event.object_id}}

    def body(self, event: FakeEvent) -> Any:
        resource, _, name = event.type.partition(".")
        data = {"id": event.object_id, "object": resource, "updated_at": written(event.occurred_at)}
        return {"event": name, "data": data}

    def carried(self, event: FakeEvent) -> Mapping[str, str]:
        return {"X-Webhook-ID": event.key}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"X-Signature": hex_mac(secret, body)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailgunFormat(VendorFormat):
    """Mailgun: the body has its signature inside; every page names a next one; an empty one is the last."""

    semantics: ListSemantics = MAILGUN
    listing: ClassVar[tuple[str, str]] = ("GET", "/YOUR-DOMAIN/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.headers.get("authorization") == f"Basic {b64encode(f'api:{self.token}'.encode()).decode()}"

    def query(self, request: ApiRequest) -> Query:
        begin, end = request.param("begin"), request.param("end")
        if request.param("ascending") != "yes" or not begin or not end:
            raise BadRequestError("begin")
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("limit")),
            start=datetime.fromtimestamp(int(begin), UTC),
            end=datetime.fromtimestamp(int(end), UTC),
            after=request.param("page"),
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:
        last = listing.events[-1].key if listing.events else f"{request.param('page')}x"
        names = ("begin", "end", "ascending", "limit")
        asked = "&".join(f"{name}={request.param(name)}" for name in names)
        url = f"http://{request.headers['host']}{request.path}?{asked}&page={last}"
        return {"items": [self.encode(event) for event in listing.events], "paging": {"next": url}}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        return {"id": event.key, "event": event.type, "timestamp": event.occurred_at.timestamp()}

    def signed_body(self, event: FakeEvent, secret: str, now: datetime) -> Any:
        time, token = str(int(now.timestamp())), f"{event.number:050}"
        signature = {"timestamp": time, "token": token, "signature": hex_mac(secret, f"{time}{token}".encode())}
        return {"signature": signature, "event-data": self.encode(event)}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class OktaFormat(VendorFormat):
    """Okta: a header names the next page; the hook carries a header of our choice."""

    semantics: ListSemantics = OKTA
    listing: ClassVar[tuple[str, str]] = ("GET", "/api/v1/logs")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.headers.get("authorization") == f"SSWS {self.token}"

    def query(self, request: ApiRequest) -> Query:
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("limit")),
            start=moment(request.param("since")),
            end=moment(request.param("until")),
            after=request.param("after"),
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return [self.encode(event) for event in listing.events]

    def page_headers(self, listing: Listing, request: ApiRequest) -> Mapping[str, str]:
        asked = "&".join(f"{name}={request.param(name)}" for name in ("since", "until", "limit"))
        url = f"http://{request.headers['host']}{request.path}?{asked}"
        after = f"{url}&after={listing.events[-1].key}" if listing.has_more else ""
        return {"Link": f'<{url}>; rel="self"' + (f', <{after}>; rel="next"' if after else "")}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        at, target = written(event.occurred_at), [{"id": event.object_id}]
        return {"uuid": event.key, "eventType": event.type, "published": at, "target": target}

    def body(self, event: FakeEvent) -> Any:
        return {"eventType": "com.okta.event_hook", "data": {"events": [self.encode(event)]}}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"Authorization": secret}


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeformFormat(VendorFormat):
    """Typeform: the responses of a form, the newest first; the cursor is the last one's token."""

    semantics: ListSemantics = TYPEFORM
    listing: ClassVar[tuple[str, str]] = ("GET", "/forms/YOUR-FORM/responses")

    def query(self, request: ApiRequest) -> Query:
        end = moment(request.param("until"))
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("page_size")),
            start=moment(request.param("since")),
            end=end + self.semantics.resolution if end else None,
            after=request.param("before"),
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return {"total_items": 9, "items": [self.encode(event) for event in listing.events]}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        return {"token": event.key, "form_id": event.object_id, "submitted_at": written(event.occurred_at)}

    def body(self, event: FakeEvent) -> Any:
        return {"event_id": f"e{event.number}", "event_type": event.type, "form_response": self.encode(event)}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"Typeform-Signature": f"sha256={base64_mac(secret, body)}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrelloFormat(VendorFormat):
    """Trello: the credentials are in the query; the address is signed too, with SHA-1."""

    semantics: ListSemantics = TRELLO
    listing: ClassVar[tuple[str, str]] = ("GET", "/1/boards/YOUR-BOARD/actions")

    def is_authorised(self, request: ApiRequest) -> bool:
        return (request.param("token"), request.param("key")) == (self.token, self.token)

    def query(self, request: ApiRequest) -> Query:
        return Query(stream=OWN_STREAM, limit=self.limit(request.param("limit")), after=request.param("before"))

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return [self.encode(event) for event in listing.events]

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        data = {"board": {"id": "b1"}, "card": {"id": event.object_id}}
        return {"id": event.key, "type": event.type, "date": written(event.occurred_at), "data": data}

    def body(self, event: FakeEvent) -> Any:
        return {"action": self.encode(event), "model": {"id": "b1"}}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        mac = hmac.new(secret.encode(), body + endpoint.url.encode(), hashlib.sha1).digest()
        return {"X-Trello-Webhook": b64encode(mac).decode()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutFormat(VendorFormat):
    """Checkout.com, the previous platform: both bounds inclusive, pages by offset, rows without bodies."""

    semantics: ListSemantics = CHECKOUT
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.headers.get("authorization") == self.token

    def read(self, request: ApiRequest, state: FakeState) -> Listing:
        skip, limit = int(request.param("skip") or 0), self.limit(request.param("limit"))
        start, end = moment(request.param("from")), moment(request.param("to"))
        end = end + self.semantics.resolution if end else None
        query = Query(stream=OWN_STREAM, limit=skip + limit, start=start, end=end)
        listing = state.read(query)
        return replace(listing, events=listing.events[skip:])

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return {"total_count": 9, "data": [self.encode(event) for event in listing.events]}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        return {"id": event.key, "type": event.type, "created_on": written(event.occurred_at)}

    def body(self, event: FakeEvent) -> Any:
        return {**self.encode(event), "data": {"id": event.object_id}}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"Cko-Signature": hex_mac(secret, body)}
