"""Shopify's webhooks: verifying the signature, reading the event, and rendering a received event again.

Only the body of a webhook is signed; topic, id, shop and time are unsigned headers. One client secret signs for every
shop that has the app, so the shop's name is compared as well.
"""

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from gapless_reconcilers.kit.contract import (
    OWN_STREAM,
    CannotRender,
    RecordedEvent,
    RemoteEvent,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoders import decode_webhook, recordable
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys, hmac_sha256_base64, is_signed_by_any
from gapless_reconcilers.providers.shopify.graphql import ShopifyApi
from gapless_reconcilers.providers.shopify.listing import RESOURCES, STATE_TYPES, to_text, to_time, version_of

HMAC: Final = "x-shopify-hmac-sha256"
TOPIC: Final = "x-shopify-topic"
SHOP: Final = "x-shopify-shop-domain"
WEBHOOK_ID: Final = "x-shopify-webhook-id"
TRIGGERED_AT: Final = "x-shopify-triggered-at"
API_VERSION: Final = "x-shopify-api-version"
CARRIED: Final = (TOPIC, SHOP, WEBHOOK_ID)
OPTIONAL: Final = (TRIGGERED_AT, API_VERSION, "x-shopify-event-id", "x-shopify-name", "x-shopify-sub-topic")
"""The other headers that the vendor's SDK reads. Source: shopify-api-js 13.1.0, webhooks/validate."""
TOPIC_FORM: Final = re.compile(r"[a-z0-9_]+[/.][a-z0-9_]+")
ORDERS_SHOWN: Final = timedelta(days=60)
"""Age of the oldest orders that are listed without `read_all_orders`, by creation according to the docs (NV)."""
SOON_HIDDEN: Final = timedelta(days=4)
"""An order this close to that age may disappear before the last sweep, so its events are no longer expected."""

_ID_FORM: Final = re.compile(r"[A-Za-z0-9-]{8,}")
_HOST_FORM: Final = re.compile(r"[a-z0-9.-]+")


class _Body(msgspec.Struct, gc=False):
    """The fields of a webhook that are read. Each may be absent: topics differ."""

    id: Any = None
    admin_graphql_api_id: Any = None
    updated_at: Any = None
    created_at: Any = None


def verify(request: WebhookRequest, keys: SigningKeys) -> None:
    """Raise `SignatureInvalid` unless one of `keys` signed the body."""
    signature = request.header(HMAC)
    if signature is None:
        raise SignatureInvalid("there is no X-Shopify-Hmac-Sha256 header", reason="no_signature")
    if not is_signed_by_any(keys, [signature.encode("latin-1")], request.body, hmac_sha256_base64):
        raise SignatureInvalid("the signature is not that of a secret we know; check client_secret")


def read(api: ShopifyApi, shop: str, request: WebhookRequest, now: datetime) -> RemoteEvent:
    """Return the one event of a webhook, which the headers name. Raises `WebhookRefused`.

    For the webhook of another shop the reason is `other_account`.
    """
    topic, key = _named(request, TOPIC, TOPIC_FORM), _named(request, WEBHOOK_ID, _ID_FORM)
    if _named(request, SHOP, _HOST_FORM) != shop:
        raise MalformedWebhook("the webhook is of another shop than the option names", reason="other_account")
    shown_from = None if api.all_orders else now - ORDERS_SHOWN + SOON_HIDDEN
    sent_at = min(to_time(request.header(TRIGGERED_AT)) or now, now)
    return recordable(None, _event, key, topic, request.body, sent_at, api.resources, shown_from)


def render(event: RecordedEvent, secret: Secret, shop: str, api_version: str) -> WebhookMessage | CannotRender:
    """Return a received webhook byte for byte, with its headers, signed now with `secret`.

    `api_version` stands in for a webhook that was recorded without its headers. A listed state has another shape than
    a webhook, so it cannot be rendered as one. A destination with Shopify's own signature would never get missed
    events: `gapless check` says so.
    """
    if event.type in STATE_TYPES:
        return CannotRender(reason="it was listed, as GraphQL shows the object: Shopify sends no such webhook")
    kept = {name: value for name, value in event.headers.items() if name in (*CARRIED, *OPTIONAL) and value.isascii()}
    headers = {
        "content-type": "application/json",
        TOPIC: event.type,
        SHOP: shop,
        WEBHOOK_ID: event.key,
        TRIGGERED_AT: to_text(event.occurred_at),
        API_VERSION: api_version,
        **kept,
        HMAC: hmac_sha256_base64(secret.reveal().encode(), event.payload).decode(),
    }
    return WebhookMessage(headers=headers, body=event.payload)


def _named(request: WebhookRequest, name: str, form: re.Pattern[str]) -> str:
    """Return the header `name`. Raises `SignatureInvalid`, as the SDK does without it."""
    value = request.header(name)
    if value is None or not form.fullmatch(value):
        raise SignatureInvalid(f"the header {name} is missing or of another form", reason="bad_header")
    return value


def _event(
    key: str, topic: str, payload: bytes, sent_at: datetime, resources: Collection[str], shown_from: datetime | None
) -> RemoteEvent:
    """Return the event of a webhook.

    A body with an id and an `updated_at` is a state and occurred at that time. The list has the same time, so a
    listing of this time must show this state or a later one. A deletion is the last version of its object.
    Anything else, such as `orders/edited`, is an event that no list can show. Orders created before
    `shown_from` are too old to be listed, or will be soon.
    """
    body, (name, _, action) = decode_webhook(payload, _Body), topic.partition("/")
    resource, listed = RESOURCES.get(name), name in resources
    gid = body.admin_graphql_api_id if isinstance(body.admin_graphql_api_id, str) else None
    if resource and gid is None and isinstance(body.id, int):
        gid = f"{resource.gid}{body.id}"
    occurred_at, version, shown = sent_at, None, False
    if resource and gid and gid.startswith(resource.gid):
        created_at, updated_at = to_time(body.created_at), to_time(body.updated_at)
        if action == "delete":
            version = version_of(sent_at)
        elif updated_at:
            occurred_at, version = updated_at, version_of(updated_at)
            is_hidden = name == "orders" and shown_from and created_at and created_at < shown_from
            shown = listed and not is_hidden
    return RemoteEvent(
        key=key,
        type=topic,
        occurred_at=occurred_at,
        payload=payload,
        stream=name if listed else OWN_STREAM,
        object_key=gid,
        object_version=version,
        listable=shown,
    )
