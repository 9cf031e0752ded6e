"""Stripe's webhook endpoints: finding ours, creating it, and switching it on again.

Source: Stripe's API reference, webhook endpoints, read November 2026.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Registration, Secret, Subscription
from gapless_reconcilers.kit.decoders import decode_items, decode_response
from gapless_reconcilers.providers.stripe.listing import StripeApi, StripeList

ENDPOINTS: Final = "/v1/webhook_endpoints"


class StripeEndpoint(msgspec.Struct, gc=False):
    """One endpoint. A Connect endpoint is known by its `application` (NV: no other field shows it)."""

    url: str
    status: str
    enabled_events: tuple[str, ...]
    id: str | None = None
    api_version: str | None = None
    application: str | None = None


class _Made(msgspec.Struct, gc=False):
    id: str
    secret: str


def read(response: httpx.Response, webhook_url: str) -> Subscription:
    """Return the endpoints at `webhook_url`, else those with the same path, combined. Raises `UnexpectedShape`."""
    path = urlsplit(webhook_url).path
    endpoints = decode_items(decode_response(response, StripeList).data, StripeEndpoint, "data")
    same = [each for each in endpoints if each.url == webhook_url]  # else by the path: our public name may be unknown
    found = same or [each for each in endpoints if urlsplit(each.url).path == path]
    enabled = [endpoint for endpoint in found if endpoint.status == "enabled"]
    if not enabled:
        why = f"the endpoint at {path} is {found[0].status}" if found else f"no endpoint has the path {path}"
        known = found[0].id if found else None
        return Subscription(healthy=False, reason=f"{why}; see Webhooks in the Stripe dashboard", id=known)
    return Subscription(
        healthy=True,
        reason="",
        id=enabled[0].id,
        types=tuple(sorted({pattern for endpoint in enabled for pattern in endpoint.enabled_events})),
        api_version=enabled[0].api_version,
        own_covered=any(not endpoint.application for endpoint in enabled),
        streams_covered=any(endpoint.application for endpoint in enabled),
    )


def register_request(api: StripeApi, webhook_url: str, types: Sequence[str], api_version: str | None) -> httpx.Request:
    """`POST /v1/webhook_endpoints`; Stripe chooses the secret. With `connect`, for the connected accounts."""
    form: dict[str, str | list[str]] = {"url": webhook_url, "enabled_events[]": list(types) or ["*"]}
    if api_version is not None:
        form["api_version"] = api_version
    if api.connect:
        form["connect"] = "true"
    return httpx.Request("POST", api.base + ENDPOINTS, data=form)


def read_registration(response: httpx.Response) -> Registration:
    """Return the endpoint and its secret, which Stripe shows only now. Raises `UnexpectedShape`."""
    made = decode_response(response, _Made)
    return Registration(id=made.id, secret=Secret(made.secret))


def repair_request(api: StripeApi, subscription: Subscription) -> httpx.Request | None:
    """`POST /v1/webhook_endpoints/{id}` with `disabled=false`; None: there is no endpoint."""
    if subscription.id is None:
        return None
    url = f"{api.base}{ENDPOINTS}/{quote(subscription.id, safe='')}"
    return httpx.Request("POST", url, data={"disabled": "false"})
