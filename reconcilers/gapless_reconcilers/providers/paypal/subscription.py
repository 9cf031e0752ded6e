"""The app's webhooks: finding ours, and creating it. PayPal does not disable webhooks."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Registration, Subscription
from gapless_reconcilers.kit.decoders import decode_items, decode_response


class _Type(msgspec.Struct, gc=False):
    name: str


class _Webhook(msgspec.Struct, gc=False):
    id: str
    url: str
    event_types: list[_Type]


class _Webhooks(msgspec.Struct, gc=False):
    webhooks: list[msgspec.Raw]


def read(response: httpx.Response, webhook_url: str, our_ids: Sequence[str]) -> Subscription:
    """Return our webhook, found by its id or address."""
    rows = decode_items(decode_response(response, _Webhooks).webhooks, _Webhook, "webhooks")
    path = urlsplit(webhook_url).path
    found = next((row for row in rows if row.id in our_ids or urlsplit(row.url).path == path), None)
    if found is None:
        return Subscription(healthy=False, reason=f"no webhook of the app has the path {path}, or our webhook_id")
    why = ""
    if urlsplit(found.url).path != path:
        why = f"our webhook sends to another path than {path}"
    elif found.id not in our_ids:
        why = f"the webhook at {path} has the id {found.id}; name it in webhook_id, or nothing verifies"
    types = tuple(each.name for each in found.event_types)
    return Subscription(healthy=not why, reason=why, id=found.id, types=None if why else types)


def new(webhook_url: str, types: Sequence[str]) -> dict[str, Any]:
    """Return the body that creates a webhook; there is no secret."""
    return {"url": webhook_url, "event_types": [{"name": name} for name in types or ["*"]]}


def read_registration(response: httpx.Response) -> Registration:
    """Return the new webhook; its id is the option `webhook_id`."""
    return Registration(id=decode_response(response, _Webhook).id)


def repair_request(subscription: Subscription, webhook_url: str) -> httpx.Request | None:  # noqa: ARG001
    """Return None: a webhook exists or not, and cannot be switched on."""
    return None
