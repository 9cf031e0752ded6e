"""Stripe's webhooks: verifying the signature, reading the event, and rendering an event.

Signatures are verified exactly as `stripe.WebhookSignature.verify_header` does: an old one is refused, one with a time
ahead of ours is not (only the holder of the secret could have signed it).
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from gapless_reconcilers.kit.contract import OWN_STREAM, RemoteEvent, Secret, WebhookMessage, WebhookRequest
from gapless_reconcilers.kit.decoders import decode_json, decode_webhook, peek, recordable
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys, hmac_sha256_hex, is_signed_by_any, parse_timed_signatures
from gapless_reconcilers.providers.stripe import thin
from gapless_reconcilers.providers.stripe.listing import StripeApi, StripeEvent, remote_event

SIGNATURE_HEADER: Final = "stripe-signature"


class _Claim(msgspec.Struct, gc=False):
    id: str
    snapshot_event: str | None = None


class _Versioned(msgspec.Struct, gc=False):
    api_version: str | None = None


def verify(request: WebhookRequest, keys: SigningKeys, tolerance: timedelta, now: datetime) -> None:
    """Raise `SignatureInvalid` unless one of `keys` made one `v1` of the header within `tolerance`."""
    header = request.header(SIGNATURE_HEADER)
    if header is None:
        raise SignatureInvalid("there is no Stripe-Signature header", reason="no_signature")
    sent_at, signatures = parse_timed_signatures(header, time="t", scheme="v1")
    if not is_signed_by_any(keys, signatures, b"%d.%b" % (sent_at, request.body)):
        raise SignatureInvalid("no v1 signature is that of a secret we know; check webhook_secret")
    oldest_s = tolerance.total_seconds()
    if oldest_s and sent_at < now.timestamp() - oldest_s:
        raise SignatureInvalid(f"the signature is older than {oldest_s:g} s; check the clock", reason="stale")


def read(api: StripeApi, body: bytes) -> RemoteEvent:
    """Return the one event of a snapshot webhook, or of a thin one. Raises `MalformedWebhook`."""
    try:
        snapshot = decode_webhook(body, StripeEvent)
    except MalformedWebhook:
        event = thin.read(api, body)
        if event is None:
            raise
        return event
    return recordable(None, remote_event, snapshot, body, snapshot.account or OWN_STREAM, api)


def claimed(body: bytes) -> tuple[str, ...]:
    """Return the key that an unverified body claims: of a thin event, that of its snapshot twin."""
    claim = peek(body, _Claim)
    return () if claim is None else (claim.snapshot_event or claim.id,)


def render(body: bytes, stream: str, secret: Secret, now: datetime) -> WebhookMessage:
    """Return the recorded event of `stream`, signed now: byte for byte if it came by webhook.

    A listed event has the account's API version at the time of the event, not the endpoint's. Its connected account is
    added here, because the list of that account need not name it (NV).
    """
    if stream and not thin.is_thin(body) and decode_webhook(body, StripeEvent).account is None:
        body = b'{"account":%b,%b' % (msgspec.json.encode(stream), body.lstrip()[1:])
    sent_at = int(now.timestamp())
    signature = hmac_sha256_hex(secret.reveal().encode(), b"%d.%b" % (sent_at, body)).decode()
    headers = {"content-type": "application/json; charset=utf-8", SIGNATURE_HEADER: f"t={sent_at},v1={signature}"}
    return WebhookMessage(headers=headers, body=body)


def version_of(payload: bytes) -> str | None:
    """Return the event's `api_version`."""
    return decode_json(payload, _Versioned, "").api_version
