"""Shopify's format for the fake provider: GraphQL lists of states, the app's subscriptions, signed webhooks.

Each emitted event is one change of an object (`object_id`, a number as text) of the resource that is its
stream. The list shows only the last one of each object, and none that was deleted.
"""

import hashlib
import hmac
import json
import random
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from gapless_reconcilers.kit.contract import Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, ListSemantics, Query
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

SEMANTICS = ListSemantics(
    order=Order.OLDEST_FIRST, resolution=timedelta(seconds=1), history=None, default_limit=250, most_per_page=250
)
EVERYTHING = 1 << 40
"""A limit above any number of events: the last state of an object can be anywhere in the list."""
_UNKNOWN_SECRET = "shpss_nobody_knows_this_one"  # noqa: S105 - a fault, not a secret
_LIST = re.compile(r"(orders|products|customers)\(first: \$first")
_BOUNDS = re.compile(r"updated_at:>='([^']*)' AND updated_at:<'([^']*)'")
_GIDS = {"orders": "Order", "products": "Product", "customers": "Customer"}
_ZONE = timezone(timedelta(hours=-5))
"""Webhooks have times in the shop's own zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopifyFormat:
    """One app on one shop. `deepest`: the number of objects that one query can be paged through."""

    semantics: ListSemantics = SEMANTICS
    access_token: str = "shpat_fake"  # noqa: S105 - of a fake
    shop: str = "fake.myshopify.com"
    api_version: str = "2026-10"
    scopes: tuple[str, ...] = ("read_orders", "read_products", "read_customers", "read_all_orders")
    deepest: int = 25_000

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Return a webhook id: a UUID."""
        digits = f"{chance.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def object_id(self, number: int, event_type: str) -> str:  # noqa: ARG002
        """Such as `5000000012`."""
        return str(5_000_000_000 + number)

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the token is ours."""
        return request.headers.get("x-shopify-access-token") == self.access_token

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        """Return the response to a GraphQL query. All queries go to one path; their text distinguishes them."""
        if request.path != f"/admin/api/{self.api_version}/graphql.json" or request.method != "POST":
            return self.refuse(404)
        content = json.loads(request.body)
        query, variables = content["query"], content["variables"]
        if "currentAppInstallation" in query:
            return _data(currentAppInstallation={"accessScopes": [{"handle": scope} for scope in self.scopes]})
        if "webhookSubscriptions" in query:
            rows = [row for endpoint in state.endpoints for row in self._subscriptions(endpoint)]
            return _data(webhookSubscriptions={"nodes": rows, "pageInfo": {"hasNextPage": False}})
        found = _LIST.search(query)
        if found is None:
            return _data(shop={"id": "gid://shopify/Shop/1"})
        if f"read_{found[1]}" not in self.scopes:
            return _errors("ACCESS_DENIED", f"Access denied for {found[1]} field.")
        return self._list(found[1], variables, state)

    def refuse(self, status: int) -> ApiAnswer:
        """Return an error in Shopify's form; throttling is a 200."""
        if status == 429:  # noqa: PLR2004
            bucket = {"maximumAvailable": 2000.0, "currentlyAvailable": 152, "restoreRate": 100.0}
            cost = {"requestedQueryCost": 252, "actualQueryCost": None, "throttleStatus": bucket}
            return _errors("THROTTLED", "Throttled", extensions={"cost": cost})
        return ApiAnswer(status=status, body=json.dumps({"errors": f"refused with {status}"}).encode())

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """Return the webhook of a change: the object as REST shows it, or only its id if it was deleted."""
        body = json.dumps(self.body(event)).encode()
        secret = endpoint.secret if genuine else _UNKNOWN_SECRET
        signature = b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
        headers = {
            "content-type": "application/json",
            "user-agent": "Shopify-Captain-Hook",
            "x-shopify-api-version": self.api_version,
            "x-shopify-event-id": f"event-of-{event.key}",
            "x-shopify-hmac-sha256": signature,
            "x-shopify-shop-domain": self.shop,
            "x-shopify-topic": event.type,
            "x-shopify-triggered-at": _utc(now),
            "x-shopify-webhook-id": event.key,
        }
        return Message(headers=headers, body=body)

    def body(self, event: FakeEvent) -> dict[str, Any]:
        """Return the body of the webhook of `event`."""
        number = int(event.object_id)
        if event.type.endswith("/delete"):
            return {"id": number}
        at = event.occurred_at.astimezone(_ZONE).isoformat()
        gid = f"gid://shopify/{_GIDS.get(event.stream, 'Thing')}/{number}"
        return {"id": number, "admin_graphql_api_id": gid, "created_at": at, "updated_at": at, "change": event.number}

    def node(self, event: FakeEvent) -> dict[str, Any]:
        """Return the object as the list shows it after `event`."""
        at = _utc(event.occurred_at)
        shown: dict[str, Any] = {"id": f"gid://shopify/{_GIDS[event.stream]}/{event.object_id}"}
        if event.stream == "orders":
            shown |= {"name": f"#{event.object_id}"}
        shown |= {"createdAt": at, "updatedAt": at}
        if event.stream == "orders":
            shown |= {"processedAt": at, "cancelledAt": None, "closedAt": None, "test": False, "currencyCode": "EUR"}
            shown |= {"displayFinancialStatus": "PAID", "displayFulfillmentStatus": "UNFULFILLED"}
        return shown

    def _list(self, resource: str, variables: dict[str, Any], state: FakeState) -> ApiAnswer:
        start, end = (datetime.fromisoformat(text) for text in _bounds(variables["query"]))
        states = _last_states(state.read(Query(stream=resource, limit=EVERYTHING)).events)
        after, depth = _read_cursor(variables.get("after"))
        first = variables["first"]
        if depth + first > self.deepest:
            return _errors(None, f"Cannot page past {self.deepest} objects")
        left = [event for event in states if start <= event.occurred_at < end and _place(event) > after]
        shown = left[:first]
        cursor = _write_cursor(shown[-1], depth + len(shown)) if shown else None
        info = {"hasNextPage": len(left) > first, "endCursor": cursor}
        return _data(**{resource: {"nodes": [self.node(event) for event in shown], "pageInfo": info}})

    def _subscriptions(self, endpoint: FakeEndpoint) -> list[dict[str, Any]]:
        """Return one row for each topic; none if the endpoint is off, because Shopify deletes those."""
        topics = endpoint.types if endpoint.enabled else ()
        return [
            {
                "id": f"gid://shopify/WebhookSubscription/{endpoint.number}{number:03}",
                "topic": topic.upper().replace("/", "_"),
                "uri": endpoint.url,
                "format": "JSON",
                "filter": "",
                "includeFields": [],
                "apiVersion": {"handle": self.api_version},
            }
            for number, topic in enumerate(topics)
        ]


def _last_states(events: tuple[FakeEvent, ...]) -> list[FakeEvent]:
    """Return the last change of each object that still exists, oldest first."""
    last: dict[str, FakeEvent] = {}
    for event in events:
        last.pop(event.object_id, None)
        last[event.object_id] = event
    return [event for event in last.values() if not event.type.endswith("/delete")]


def _place(event: FakeEvent) -> tuple[float, int]:
    return event.occurred_at.timestamp(), event.number


def _write_cursor(event: FakeEvent, depth: int) -> str:
    return b64encode(json.dumps([*_place(event), depth]).encode()).decode()


def _read_cursor(cursor: str | None) -> tuple[tuple[float, int], int]:
    if cursor is None:
        return (0.0, -1), 0
    at, number, depth = json.loads(b64decode(cursor))
    return (at, number), depth


def _bounds(query: str) -> tuple[str, str]:
    found = _BOUNDS.fullmatch(query)
    if found is None:
        raise ValueError(f"{query} is no filter that the fake knows")
    return found[1], found[2]


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _data(**fields: Any) -> ApiAnswer:
    bucket = {"maximumAvailable": 2000.0, "currentlyAvailable": 1993, "restoreRate": 100.0}
    cost = {"requestedQueryCost": 252, "actualQueryCost": 7, "throttleStatus": bucket}
    return ApiAnswer(status=200, body=json.dumps({"data": fields, "extensions": {"cost": cost}}).encode())


def _errors(code: str | None, message: str, **more: Any) -> ApiAnswer:
    error = {"message": message, **({"extensions": {"code": code}} if code else {})}
    return ApiAnswer(status=200, body=json.dumps({"errors": [error], **more}).encode())
