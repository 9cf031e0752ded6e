"""A delivery: verifying its signature, reading its event, and rendering it again."""

from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from gapless_reconcilers.kit.contract import RecordedEvent, RemoteEvent, Secret, WebhookMessage, WebhookRequest
from gapless_reconcilers.kit.decoders import decode_or_none, decode_webhook, recordable
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys, hmac_sha256_hex, is_signed_by_any

SIGNATURE_HEADER: Final = "x-hub-signature-256"
EVENT_HEADER, DELIVERY_HEADER, HOOK_HEADER = "x-github-event", "x-github-delivery", "x-github-hook-id"
OF_APP: Final = "app"
"""The hook in the keys of an App, whose list does not name its only hook."""


class _Repository(msgspec.Struct, gc=False):
    id: Any = None


class _Body(msgspec.Struct, gc=False):
    action: Any = None
    repository: msgspec.Raw = msgspec.Raw(b"null")


def read(request: WebhookRequest, now: datetime, keys: SigningKeys, our_hook: str) -> RemoteEvent:
    """Return the one event of a delivery, JSON or form. It has no time, so the time of arrival is used."""
    _verify(request, keys)
    name, guid, sender = (request.required(header) for header in (EVENT_HEADER, DELIVERY_HEADER, HOOK_HEADER))
    hook = OF_APP if our_hook == OF_APP else sender
    body = _read_body(request.body)
    action = body.action if isinstance(body.action, str) and body.action else None
    named = decode_or_none(body.repository, _Repository) or _Repository()
    event = recordable(None, remote, hook, guid, name, action, now, request.body, repository_id=named.id)
    return event if hook == our_hook else msgspec.structs.replace(event, listable=False)


def claimed(request: WebhookRequest, our_hook: str) -> tuple[str, ...]:
    """Return the key that an unverified delivery claims."""
    guid, sender = request.header(DELIVERY_HEADER), request.header(HOOK_HEADER)
    return (f"{OF_APP if our_hook == OF_APP else sender}:{guid}",) if guid and sender else ()


def remote(
    hook: str,
    guid: str,
    name: str,
    action: str | None,
    at: datetime,
    payload: bytes | msgspec.Raw,
    ref: str = "",
    *,
    repository_id: object = None,
) -> RemoteEvent:
    """Build the event, for webhooks and list alike: its identity is decided only here. Raises `ValueError`.

    Its object is the repository, which is all that the list names.
    """
    kind = f"{name}.{action}" if action else name
    is_named = isinstance(repository_id, int) and not isinstance(repository_id, bool)
    object_key = f"repository/{repository_id}" if is_named else None
    return RemoteEvent(
        key=f"{hook}:{guid}", type=kind, occurred_at=at, payload=payload, object_key=object_key, ref=ref or None
    )


def render(event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> WebhookMessage:  # noqa: ARG001
    """Return the delivery with a new signature: byte for byte if it came by webhook, else the payload of the log."""
    hook, _, guid = event.key.partition(":")
    is_form = event.payload.startswith(b"payload=")
    headers = {
        "content-type": "application/x-www-form-urlencoded" if is_form else "application/json",
        EVENT_HEADER: event.type.partition(".")[0],
        DELIVERY_HEADER: guid,
        HOOK_HEADER: hook,
        SIGNATURE_HEADER: f"sha256={hmac_sha256_hex(secret.reveal().encode(), event.payload).decode()}",
    }
    return WebhookMessage(headers=headers, body=event.payload)


def _verify(request: WebhookRequest, keys: SigningKeys) -> None:
    """Raise `SignatureInvalid` unless one of our secrets signed the body. A missing signature is refused too."""
    scheme, _, signature = request.required(SIGNATURE_HEADER, "has the hook a secret?").partition("=")
    if scheme != "sha256" or not signature:
        raise SignatureInvalid("the signature is not sha256=…", reason="bad_header")
    if not is_signed_by_any(keys, [signature.encode("latin-1")], request.body):
        raise SignatureInvalid("the signature is that of no secret we know; check webhook_secret")


def _read_body(body: bytes) -> _Body:
    """Return what is needed of the body: JSON, or a form with JSON in `payload`. Raises `MalformedWebhook`."""
    if body.startswith(b"payload="):
        try:
            body = parse_qs(body.decode("ascii"), strict_parsing=True)["payload"][0].encode()
        except (ValueError, KeyError) as error:
            raise MalformedWebhook("the form cannot be read") from error
    return decode_webhook(body, _Body)
