"""Thin (v2) events: a notification that names the changed object but does not carry it.

It is signed like a snapshot event. A thin event with a snapshot twin is the same event: it has the twin's key, so that
both webhooks, and the list of v1 events, are recognised as one event. One without a twin is in no list that is read
here, so it is never expected, and its loss cannot be proven.

Source: stripe-python 16.1.0 `v2/core/_event.py`, Stripe's page on event destinations, read November 2026.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import quote

import httpx
import msgspec

from gapless_reconcilers.kit.contract import OWN_STREAM, MissingEvent, RemoteEvent
from gapless_reconcilers.kit.decoders import decode_or_none, decode_webhook, recordable
from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape
from gapless_reconcilers.providers.stripe.listing import StripeApi

_OF_V1: Final = "v1."
"""The beginning of thin types about v1 resources; the list of v1 events has them without it."""
_TYPES: Final = (_OF_V1, "v2.")
"""The beginnings of the types of events without a twin."""


class _Related(msgspec.Struct, gc=False):
    id: str | None = None


class _Notification(msgspec.Struct, gc=False):
    id: str
    object: Literal["v2.core.event"]
    type: str
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    livemode: bool
    context: str | None = None
    related_object: _Related | None = None
    snapshot_event: str | None = None


def read(api: StripeApi, body: bytes, place: str | None = None) -> RemoteEvent | None:
    """Return the event of a thin webhook, or of the response at `place`; None if `body` is no thin event.

    Raises `MalformedWebhook`, with `place` `UnexpectedShape`, if it cannot be recorded.
    """
    try:
        notification = decode_webhook(body, _Notification)
    except MalformedWebhook:
        return None
    return recordable(place, _remote, api, notification, body)


def detail_request(api: StripeApi, missing: MissingEvent) -> httpx.Request:
    """`GET /v2/core/events/{key}`, which has the event with its data."""
    headers = {"Stripe-Context": missing.stream} if missing.stream else None
    return httpx.Request("GET", f"{api.base}/v2/core/events/{quote(missing.key, safe='')}", headers=headers)


def read_detail(api: StripeApi, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
    """Return the event with its data. Raises `UnexpectedShape`."""
    event = read(api, response.content, place="body")
    if event is None or event.key != missing.key:
        raise UnexpectedShape("id", "that of another event, or of none", missing.key)
    return event


def is_alone(event_type: str) -> bool:
    """Return True if `event_type` is that of a thin event without a snapshot twin, which only v2 returns whole."""
    return event_type.startswith(_TYPES)


def is_thin(body: bytes) -> bool:
    """Return True if `body` is a thin event."""
    return decode_or_none(body, _Notification) is not None


def _remote(api: StripeApi, notification: _Notification, body: bytes) -> RemoteEvent:
    twin, stream = notification.snapshot_event, notification.context or OWN_STREAM
    return RemoteEvent(
        key=twin or notification.id,
        type=notification.type.removeprefix(_OF_V1) if twin else notification.type,
        occurred_at=notification.created.astimezone(UTC),
        payload=body,
        stream=stream,
        object_key=notification.related_object.id if notification.related_object else None,
        listable=twin is not None and api.lists(livemode=notification.livemode, stream=stream),
        livemode=notification.livemode,
    )
