"""Stripe's webhook endpoints: whether ours is there, and how one is made.

Source: Stripe's API reference, webhook endpoints, read November 2026.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Registration, Secret, Subscription
from gapless_reconcilers.kit.decoding import decode_items, decode_response

PATH: Final = "/v1/webhook_endpoints"
ALL_TYPES: Final = "*"
Form = dict[str, str | list[str]]


class Endpoint(msgspec.Struct, gc=False):
    """One endpoint. A Connect endpoint is known by its `application` (NV: no other field tells)."""

    url: str
    status: str
    enabled_events: tuple[str, ...]
    id: str | None = None
    api_version: str | None = None
    application: str | None = None


class _Made(msgspec.Struct, gc=False):
    id: str
    secret: str


def read(rows: Sequence[msgspec.Raw]) -> list[Endpoint]:
    """The endpoints of a list. Raises `UnexpectedShape`."""
    return decode_items(rows, Endpoint, "data")


def subscription(endpoints: Sequence[Endpoint], webhook_url: str) -> Subscription:
    """What those at `webhook_url`, else those with its path, come to together."""
    found = _at(webhook_url, endpoints)
    enabled = [endpoint for endpoint in found if endpoint.status == "enabled"]
    if not enabled:
        path = urlsplit(webhook_url).path
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


def new(
    webhook_url: str, types: Sequence[str], *, api_version: str | None, connect: bool
) -> dict[str, str | list[str]]:
    """The form that makes an endpoint."""
    form: dict[str, str | list[str]] = {"url": webhook_url, "enabled_events[]": list(types) or [ALL_TYPES]}
    if api_version is not None:
        form["api_version"] = api_version
    if connect:
        form["connect"] = "true"
    return form


def registration(response: httpx.Response) -> Registration:
    """What was made. Raises `UnexpectedShape`."""
    made = decode_response(response, _Made)
    return Registration(id=made.id, secret=Secret(made.secret))


def _at(url: str, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Those with this address; if there are none, those with its path (we may not know our public name)."""
    path = urlsplit(url).path
    same = [endpoint for endpoint in endpoints if endpoint.url == url]
    return same or [endpoint for endpoint in endpoints if urlsplit(endpoint.url).path == path]
