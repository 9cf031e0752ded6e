"""The formats of the vendors in `gapless_reconcilers/declared/`, for the fake provider."""

import hashlib
import hmac
import json
import random
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from gapless_reconcilers.kit.contract import OWN_STREAM, Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, ListSemantics, Query
from gapless_reconcilers.testing.fake.formats.plain import BadRequestError, PlainFormat, last_key, moment, written
from gapless_reconcilers.testing.fake.http_server import ApiRequest
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint

SECOND, MILLISECOND = timedelta(seconds=1), timedelta(milliseconds=1)


def semantics(order: Order, days: int, *, unit: timedelta = MILLISECOND, most: int, default: int) -> ListSemantics:
    """Return the semantics of a list that reaches `days` back."""
    return ListSemantics(
        order=order, resolution=unit, history=timedelta(days=days), default_limit=default, most_per_page=most
    )


GOCARDLESS: Final = semantics(Order.NEWEST_FIRST, 548, most=500, default=50)
PADDLE: Final = semantics(Order.NEWEST_FIRST, 90, most=200, default=50)
CHARGEBEE: Final = semantics(Order.OLDEST_FIRST, 90, unit=SECOND, most=100, default=10)
WORKOS: Final = semantics(Order.OLDEST_FIRST, 30, most=100, default=10)
INCREASE: Final = semantics(Order.OLDEST_FIRST, 30, unit=SECOND, most=1000, default=100)
SQUARE: Final = semantics(Order.OLDEST_FIRST, 28, most=100, default=100)


def hex_mac(secret: str, message: bytes) -> str:
    """Return HMAC-SHA256 in hex."""
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def base64_mac(secret: str, message: bytes) -> str:
    """Return HMAC-SHA256 in base64."""
    return b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class GoCardlessFormat(PlainFormat):
    """GoCardless: `after` continues with older rows, because the list is newest first."""

    semantics: ListSemantics = GOCARDLESS
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def query(self, request: ApiRequest) -> Query:
        if request.headers.get("gocardless-version") != "2015-07-06":
            raise BadRequestError("version")
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("limit")),
            start=moment(request.param("created_at[gte]")),
            end=moment(request.param("created_at[lt]")),
            after=request.param("after"),
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        cursors = {"before": None, "after": last_key(listing)}
        return {
            "events": [self.encode(event) for event in listing.events],
            "meta": {"cursors": cursors, "limit": listing.query.limit},
        }

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        resource, _, action = event.type.partition(".")
        cause = f"{resource.removesuffix('s')}_{action}"
        return {
            "id": event.key,
            "created_at": written(event.occurred_at),
            "resource_type": resource,
            "action": action,
            "links": {resource.removesuffix("s"): event.object_id},
            "details": {"origin": "gocardless", "cause": cause, "description": "Payment."},
            "metadata": {},
        }

    def body(self, event: FakeEvent) -> Any:
        return {"events": [self.encode(event)], "meta": {"webhook_id": f"WB{event.number:010}"}}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"webhook-signature": hex_mac(secret, body)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddleFormat(PlainFormat):
    """Paddle: no filter by time; ids sort in the order of occurrence."""

    semantics: ListSemantics = PADDLE
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def event_key(self, number: int, chance: random.Random) -> str:
        return f"evt_{number:013}{chance.getrandbits(48):012x}"

    def query(self, request: ApiRequest) -> Query:
        if request.param("order_by") != "id[DESC]":
            raise BadRequestError("order_by")
        return Query(stream=OWN_STREAM, limit=self.limit(request.param("per_page")), after=request.param("after"))

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        last = listing.events[-1].key if listing.events else ""
        pagination = {
            "per_page": listing.query.limit,
            "next": f"https://api.paddle.com/events?after={last}",
            "has_more": listing.has_more,
            "estimated_total": 3,
        }
        rows = [self.encode(event) for event in listing.events]
        return {"data": rows, "meta": {"request_id": "d4d0", "pagination": pagination}}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        data = {"id": event.object_id, "status": "paid", "currency_code": "USD"}
        return {
            "event_id": event.key,
            "event_type": event.type,
            "occurred_at": written(event.occurred_at),
            "data": data,
        }

    def body(self, event: FakeEvent) -> Any:
        return {**self.encode(event), "notification_id": f"ntf_{event.number:026}"}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        time = int(now.timestamp())
        return {"paddle-signature": f"ts={time};h1={hex_mac(secret, b'%d:%b' % (time, body))}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargebeeFormat(PlainFormat):
    """Chargebee: whole seconds; both bounds are exclusive; rows are wrapped; the last page has no offset."""

    semantics: ListSemantics = CHARGEBEE
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.headers.get("authorization") == f"Basic {b64encode(f'{self.token}:'.encode()).decode()}"

    def query(self, request: ApiRequest) -> Query:
        if request.param("sort_by[asc]") != "occurred_at":
            raise BadRequestError("sort_by")
        after, before = (request.param(f"occurred_at[{name}]") for name in ("after", "before"))
        offset = request.param("offset")
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("limit")),
            start=datetime.fromtimestamp(int(after) + 1, UTC) if after else None,
            end=datetime.fromtimestamp(int(before), UTC) if before else None,
            after=json.loads(offset)[1] if offset else None,
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        page: dict[str, Any] = {"list": [{"event": self.encode(event)} for event in listing.events]}
        if listing.has_more:
            last = listing.events[-1]
            page["next_offset"] = json.dumps([str(int(last.occurred_at.timestamp()) * 1000), last.key])
        return page

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        at = int(event.occurred_at.timestamp())
        return {
            "id": event.key,
            "occurred_at": at,
            "source": "admin_console",
            "object": "event",
            "api_version": "v2",
            "content": {"customer": {"id": event.object_id, "resource_version": at * 1000}},
            "event_type": event.type,
            "webhook_status": "scheduled",
        }

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"authorization": f"Basic {b64encode(secret.encode()).decode()}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOSFormat(PlainFormat):
    """WorkOS: types must be named; a cursor and a start exclude each other; the start is exclusive."""

    semantics: ListSemantics = WORKOS
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def query(self, request: ApiRequest) -> Query:
        types, start, after = (request.param(name) for name in ("events", "range_start", "after"))
        bounds = (request.param("range_end"), start)
        is_zulu = all(text is None or text.endswith("Z") for text in bounds)
        if not types or request.param("order") != "asc" or (start and after) or not is_zulu:
            raise BadRequestError("events")
        since = moment(start)
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("limit")),
            start=since + self.semantics.resolution if since else None,
            end=moment(request.param("range_end")),
            after=after,
            types=frozenset(types.split(",")).__contains__,
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        rows = [self.encode(event) for event in listing.events]
        return {"object": "list", "data": rows, "list_metadata": {"after": last_key(listing)}}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        data = {"object": event.type.partition(".")[0], "id": event.object_id, "email": "user@example.com"}
        at = written(event.occurred_at)
        return {"object": "event", "id": event.key, "event": event.type, "data": data, "created_at": at}

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        time = int(now.timestamp() * 1000)
        return {"workos-signature": f"t={time}, v1={hex_mac(secret, b'%d.%b' % (time, body))}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncreaseFormat(PlainFormat):
    """Increase: every page with rows names a cursor, even the last one; an empty page follows."""

    semantics: ListSemantics = INCREASE
    listing: ClassVar[tuple[str, str]] = ("GET", "/events")

    def query(self, request: ApiRequest) -> Query:
        order = request.param("order_by.field"), request.param("order_by.direction")
        if order != ("created_at", "ascending"):
            raise BadRequestError("order_by")
        cursor = request.param("cursor")
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(request.param("limit")),
            start=moment(request.param("created_at.on_or_after")),
            end=moment(request.param("created_at.before")),
            after=b64decode(cursor).decode() if cursor else None,
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:
        rows = [self.encode(event) for event in listing.events]
        last = b64encode(listing.events[-1].key.encode()).decode() if rows else request.param("cursor")
        return {"data": rows, "next_cursor": last}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        return {
            "id": event.key,
            "associated_object_id": event.object_id,
            "associated_object_type": event.object_id.partition("_")[0],
            "category": event.type,
            "created_at": written(event.occurred_at, "seconds"),
            "type": "event",
        }

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        time, name = int(now.timestamp()), f"wh_{hashlib.sha256(body).hexdigest()[:12]}"
        signature = base64_mac(secret, b"%b.%d.%b" % (name.encode(), time, body))
        return {"webhook-id": name, "webhook-timestamp": str(time), "webhook-signature": f"v1,{signature}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareFormat(PlainFormat):
    """Square: a list by POST; both bounds are inclusive; no events is an empty object; the URL is signed too."""

    semantics: ListSemantics = SQUARE
    listing: ClassVar[tuple[str, str]] = ("POST", "/v2/events")

    def query(self, request: ApiRequest) -> Query:
        asked = json.loads(request.body)
        if asked["query"]["sort"] != {"field": "DEFAULT", "order": "ASC"}:
            raise BadRequestError("sort")
        bounds = asked["query"]["filter"]["created_at"]
        end = moment(bounds["end_at"])
        return Query(
            stream=OWN_STREAM,
            limit=self.limit(str(asked["limit"])),
            start=moment(bounds["start_at"]),
            end=end + self.semantics.resolution if end else None,
            after=b64decode(asked["cursor"]).decode() if "cursor" in asked else None,
        )

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        if not listing.events:
            return {}
        versions = [{"event_id": event.key, "api_version": "2026-09-16"} for event in listing.events]
        page: dict[str, Any] = {"events": [self.encode(event) for event in listing.events], "metadata": versions}
        if listing.has_more:
            page["cursor"] = b64encode(listing.events[-1].key.encode()).decode()
        return page

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        payment = {"payment": {"id": event.object_id, "status": "APPROVED"}}
        return {
            "merchant_id": "6SSW7HV8K2ST5",
            "type": event.type,
            "event_id": event.key,
            "created_at": written(event.occurred_at),
            "data": {"type": "payment", "id": event.object_id, "object": payment},
        }

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {"x-square-hmacsha256-signature": base64_mac(secret, endpoint.url.encode() + body)}
