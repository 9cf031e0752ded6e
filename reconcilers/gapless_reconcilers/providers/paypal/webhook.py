"""A webhook: proving that it is PayPal's, by a certificate or by a request to PayPal, and reading its event."""

import binascii
import re
import zlib
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gapless_reconcilers.kit.certificates import NotTrusted, is_signed_with, public_roots, read_roots, trusted_key
from gapless_reconcilers.kit.contract import (
    CannotRender,
    Evidence,
    NeedsEvidence,
    RecordedEvent,
    RemoteEvent,
    Secret,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoders import decode_or_none, decode_webhook, peek, recordable, require_json
from gapless_reconcilers.kit.errors import SignatureInvalid

ID, TIME, SIGNATURE = "paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig"
CERTIFICATE, ALGORITHM = "paypal-cert-url", "paypal-auth-algo"
HEADERS: Final = (SIGNATURE, ID, TIME, CERTIFICATE, ALGORITHM)
RSA: Final = "SHA256withRSA"
DOMAIN: Final = "paypal.com"
HOSTS: Final = tuple(f"{host}.{DOMAIN}" for host in ("api", "api.sandbox", "api-m", "api-m.sandbox"))
_CERTIFICATE_URL: Final = re.compile(
    rf"https://(?:{'|'.join(map(re.escape, HOSTS))})/v1/notifications/certs/CERT-[0-9A-Za-z-]{{1,64}}", re.ASCII
)
"""Published webhooks name `https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270`, and the same
on api.sandbox. NV: PayPal documents no form; the hosts of its newer API are accepted too."""
SIMULATOR: Final = "WEBHOOK_ID"
"""The text that the simulator signs instead of a webhook's id."""
KEPT_FOR: Final = timedelta(days=1)
MOST_CERTIFICATES: Final = 8
SENT_WITHIN: Final = timedelta(days=4)
"""PayPal tries for three days, and whether each try has a time of its own is not verified (NV): so three, and one more.

The SDK judges no time. Older ones are PayPal's own, and were seen by somebody else."""


class _Resource(msgspec.Struct, gc=False):
    id: Any = None


class Event(msgspec.Struct, gc=False):
    """An event, as webhook and list have it."""

    id: str
    event_type: str
    create_time: Annotated[datetime, msgspec.Meta(tz=True)]
    resource: _Resource | None = None


class _Claim(msgspec.Struct, gc=False):
    id: str


class _Verdict(msgspec.Struct, gc=False):
    verification_status: str


def read(body: bytes) -> RemoteEvent:
    """Return the one event of a webhook."""
    return recordable(None, remote, decode_webhook(body, Event), body)


def claimed(body: bytes) -> tuple[str, ...]:
    """Return the key that an unverified body claims."""
    claim = peek(body, _Claim)
    return () if claim is None else (claim.id,)


def remote(event: Event, payload: bytes | msgspec.Raw) -> RemoteEvent:
    """Build the event, for webhooks and list alike: its identity is decided only here. Raises `ValueError`."""
    resource_id = event.resource.id if event.resource else None
    return RemoteEvent(
        key=event.id,
        type=event.event_type,
        occurred_at=event.create_time.astimezone(UTC),
        payload=payload,
        object_key=resource_id if isinstance(resource_id, str) and resource_id else None,
    )


def render(event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> CannotRender:  # noqa: ARG001
    """Return `CannotRender`: only PayPal has the key."""
    return CannotRender(reason="only PayPal can sign as PayPal; use the signature standard")


def signed_text(transmission_id: str, time: str, webhook_id: str, body: bytes) -> bytes:
    """Return the text that PayPal signs: `id|time|webhook id|crc32 of the body`, the last as a decimal number."""
    return f"{transmission_id}|{time}|{webhook_id}|{zlib.crc32(body)}".encode("latin-1", "replace")


class ByCertificate:
    """Proof by the certificate that a webhook names. It is fetched once a day and kept."""

    def __init__(self, webhook_ids: tuple[str, ...], trust_roots: str | None) -> None:
        self._ids = webhook_ids
        self._roots = public_roots() if trust_roots is None else read_roots(trust_roots)
        self._trusted: dict[bytes, tuple[RSAPublicKey, datetime]] = {}

    def needed(self, request: WebhookRequest, now: datetime, evidence: Evidence) -> NeedsEvidence | None:
        """Return the missing evidence, or None if the certificate's owner signed. Raises `SignatureInvalid`."""
        sent = _sent(request, now)
        if sent[ALGORITHM] != RSA:
            raise SignatureInvalid(f"{ALGORITHM} is not {RSA}", reason="bad_header")
        url, signature = _certificate_url(sent[CERTIFICATE]), _decoded(sent[SIGNATURE])
        if url not in evidence:
            return NeedsEvidence(request=httpx.Request("GET", url), cache_key=url, max_age=KEPT_FOR)
        key = self._key(evidence[url], now)
        for webhook_id in (*filter(None, self._ids), SIMULATOR):
            if is_signed_with(key, signature, signed_text(sent[ID], sent[TIME], webhook_id, request.body)):
                if webhook_id == SIMULATOR:
                    raise SignatureInvalid("this is an event of PayPal's simulator", reason="simulator")
                return None
        raise SignatureInvalid("PayPal did not sign this for our webhook_id, or the body was changed on the way")

    def _key(self, answer: httpx.Response, now: datetime) -> RSAPublicKey:
        """Return the key of a fetched certificate; its chain is verified once a day. Raises `SignatureInvalid`."""
        if not answer.is_success:
            raise SignatureInvalid(f"PayPal has no such certificate: {answer.status_code}")
        known = self._trusted.get(answer.content)
        if known is not None and abs(now - known[1]) < KEPT_FOR:
            return known[0]
        try:
            key = trusted_key(answer.content, self._roots, DOMAIN, now)
        except NotTrusted as error:
            raise SignatureInvalid(str(error)) from error
        if len(self._trusted) >= MOST_CERTIFICATES:
            self._trusted.clear()
        self._trusted[answer.content] = (key, now)
        return key


class ByPostback:
    """Proof by PayPal itself: each webhook is sent to it for verification, forged ones too."""

    def __init__(self, webhook_ids: tuple[str, ...], url: str) -> None:
        self._ids = webhook_ids
        self._url = url

    def needed(self, request: WebhookRequest, now: datetime, evidence: Evidence) -> NeedsEvidence | None:
        """Return the missing evidence, or None if PayPal confirms the webhook. Raises `SignatureInvalid`."""
        sent = _sent(request, now)
        require_json(request.body)
        for webhook_id in filter(None, self._ids):
            if webhook_id not in evidence:
                postback = self._postback(sent, request.body, webhook_id)
                return NeedsEvidence(
                    request=postback, cache_key=webhook_id, max_age=timedelta(0), with_credentials=True
                )
            result = decode_or_none(evidence[webhook_id].content, _Verdict)
            if result and result.verification_status == "SUCCESS":
                return None
        raise SignatureInvalid("PayPal says that it did not send this for our webhook_id")

    def _postback(self, sent: dict[str, str], body: bytes, webhook_id: str) -> httpx.Request:
        """Return the verification request. It has the body byte for byte: order of keys and form of numbers matter."""
        transmission = {name.removeprefix("paypal-").replace("-", "_"): value for name, value in sent.items()}
        content = (
            msgspec.json.encode(transmission | {"webhook_id": webhook_id})[:-1] + b',"webhook_event":' + body + b"}"
        )
        return httpx.Request("POST", self._url, content=content, headers={"content-type": "application/json"})


def _sent(request: WebhookRequest, now: datetime) -> dict[str, str]:
    """Return the headers of the transmission. Raises `SignatureInvalid` if one is absent, or too old."""
    sent = {name: request.required(name) for name in HEADERS}
    try:
        at: datetime | None = datetime.fromisoformat(sent[TIME])
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise SignatureInvalid(f"{TIME} is no time with a zone", reason="bad_header")
    if now - at > SENT_WITHIN:
        raise SignatureInvalid(f"the webhook was sent more than {SENT_WITHIN.days} days ago", reason="stale")
    return sent


def _certificate_url(text: str) -> str:
    """Return the certificate's address, which anybody may have chosen, if it is one of those that PayPal names."""
    if not _CERTIFICATE_URL.fullmatch(text):
        raise SignatureInvalid(f"{CERTIFICATE} is no address of PayPal's certificates", reason="bad_header")
    return text


def _decoded(signature: str) -> bytes:
    try:
        return b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureInvalid(f"{SIGNATURE} is no base64", reason="bad_header") from None
