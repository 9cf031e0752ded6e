"""The hook: reading its state, creating and configuring it."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Registration, Secret, Subscription
from gapless_reconcilers.kit.decoders import decode_response
from gapless_reconcilers.providers.github.webhook import OF_APP


class _Config(msgspec.Struct, gc=False):
    url: str = ""


class _Hook(msgspec.Struct, gc=False):
    id: int
    active: bool
    events: tuple[str, ...]
    config: _Config


def read(response: httpx.Response, webhook_url: str, hook: str) -> Subscription:
    """Return whether the hook is active and sends to us. GitHub does not show the types of an App."""
    path = urlsplit(webhook_url).path
    if hook == OF_APP:
        url, types, active, known = decode_response(response, _Config).url, None, True, OF_APP
    else:
        found = decode_response(response, _Hook)
        url, types, active, known = found.config.url, _patterns(found.events), found.active, str(found.id)
    if not active:
        return Subscription(healthy=False, reason="the hook is not active", id=known)
    if urlsplit(url).path != path:
        return Subscription(healthy=False, reason=f"the hook sends to another path than {path}", id=known)
    return Subscription(healthy=True, reason="", id=known, types=types)


def config(webhook_url: str, secret: Secret) -> dict[str, str]:
    """Return the configuration of the hook: its address, and the secret, which we choose."""
    return {"url": webhook_url, "content_type": "json", "secret": secret.reveal()}


def new(webhook_url: str, types: Sequence[str], secret: Secret) -> dict[str, Any]:
    """Return the body that creates a hook."""
    events = sorted({each.partition(".")[0] for each in types}) or ["*"]
    return {"name": "web", "active": True, "events": events, "config": config(webhook_url, secret)}


def registration(response: httpx.Response, hook: str) -> Registration:
    """Return the new hook; its number is the option `hook_id`."""
    return Registration(id=OF_APP if hook == OF_APP else str(decode_response(response, _Hook).id))


def _patterns(events: Sequence[str]) -> tuple[str, ...]:
    """Return hook events as patterns of our types: with any action, and without one."""
    if "*" in events:
        return ("*",)
    return tuple(sorted({pattern for event in (*events, "ping") for pattern in (event, f"{event}.*")}))
