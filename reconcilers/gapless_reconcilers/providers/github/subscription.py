"""The hook: whether it is active and sends to us, and how one is made."""

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
    """Return True if it is active and sends to us. What an App subscribes to is not told."""
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
    """Where the hook sends to, and the secret, which is ours."""
    return {"url": webhook_url, "content_type": "json", "secret": secret.reveal()}


def new(webhook_url: str, types: Sequence[str], secret: Secret) -> dict[str, Any]:
    """A hook that is to be made."""
    events = sorted({each.partition(".")[0] for each in types}) or ["*"]
    return {"name": "web", "active": True, "events": events, "config": config(webhook_url, secret)}


def registration(response: httpx.Response, hook: str) -> Registration:
    """The new hook: its number goes into `hook_id`."""
    return Registration(id=OF_APP if hook == OF_APP else str(decode_response(response, _Hook).id))


def _patterns(events: Sequence[str]) -> tuple[str, ...]:
    """Hook events as patterns of our types: with any action, and with none."""
    if "*" in events:
        return ("*",)
    return tuple(sorted({pattern for event in (*events, "ping") for pattern in (event, f"{event}.*")}))
