"""Standard Webhooks, and Svix: any sender that signs by that scheme. Push only: there is no list to compare with.

Source: the Standard Webhooks specification and standardwebhooks 1.1.0, svix 2.9.1, read November 2026.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    NO_EVIDENCE,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoding import UNREADABLE, decode_webhook
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid
from gapless_reconcilers.kit.signing import hmac_sha256_base64, is_signed_by_any

PREFIXES: Final = ("webhook", "svix")
"""Of the three headers: the specification's, and the one that Svix used before there was one."""
SYMMETRIC, PUBLIC = "whsec_", "whpk_"
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


class StandardWebhooksOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sender."""

    secret: tuple[Secret, ...]
    """`whsec_…` (symmetric) or `whpk_…` (the sender's ed25519 public key), one or, while it is rolled, several."""
    tolerance: timedelta = timedelta(seconds=300)
    """How far the time of a webhook may be from ours, either way. Default: the official libraries'."""
    type: str = "webhook"
    """The type of events whose body names none."""


class _Body(msgspec.Struct, gc=False):
    """What the specification suggests for a body, and does not enforce."""

    type: Any = None
    timestamp: Any = None


_BODY: Final = msgspec.json.Decoder(_Body)
_ANY: Final = msgspec.json.Decoder(msgspec.Raw)


class StandardWebhooks:
    """One sender of Standard Webhooks. The key of an event is its `webhook-id`, which stays over retries."""

    kind: ClassVar[str] = "standard_webhooks"
    Options: ClassVar[type[StandardWebhooksOptions]] = StandardWebhooksOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.NONE,
        basis=Basis.VENDOR_SDK,
        remedy=Remedy.NONE,
        rendering=Rendering.EXACT,
        signature_headers=("webhook-signature", "webhook-id", "webhook-timestamp"),
        unproven=(
            "That nothing is missing: there is no list. Silence alone can be watched (silence_after). What is signed "
            "with ed25519 cannot be delivered with the sender's signature: only the sender has the key."
        ),
    )

    def __init__(self, options: StandardWebhooksOptions) -> None:
        self.options = options
        self._symmetric = [key for secret in options.secret if (key := symmetric_key(secret)) is not None]
        self._public = [owner for secret in options.secret if (owner := public_key(secret)) is not None]

    def auth(self) -> None:
        """Nothing is asked."""
        return

    def budget_scope(self) -> str:
        """Nothing is counted."""
        return "standard_webhooks"

    def option_problems(self) -> list[str]:
        """Secrets that can verify nothing."""
        bad = len(self.options.secret) - len(self._symmetric) - len(self._public)
        told = f"{bad} of {len(self.options.secret)} secrets are neither {SYMMETRIC} nor {PUBLIC} with base64 behind it"
        return [f"{told}; copy them whole from the sender's page"] if bad else []

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """The one event of a webhook: any JSON."""
        key, sent_at, signatures = _headers(request)
        self._verify(request.body, key, sent_at, signatures, now)
        body = _read_body(request.body)
        try:
            event = RemoteEvent(
                key=key,
                type=body.type if isinstance(body.type, str) and body.type else self.options.type,
                occurred_at=_when(body.timestamp) or datetime.fromtimestamp(sent_at, UTC),
                payload=request.body,
                listable=False,
            )
        except (ValueError, OverflowError) as error:
            raise MalformedWebhook(f"the event cannot be recorded: {error}") from error
        return Reply(events=(event,))

    def _verify(self, body: bytes, key: str, sent_at: int, signatures: list[str], now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of our keys explains one of the signatures, near enough in time."""
        message = b"%b.%d.%b" % (key.encode("latin-1"), sent_at, body)
        theirs: dict[str, list[bytes]] = {"v1": [], "v1a": []}
        for version, _, text in (each.partition(",") for each in signatures):
            theirs.get(version, []).append(text.encode("latin-1"))
        is_ours = is_signed_by_any(self._symmetric, theirs["v1"], message, hmac_sha256_base64)
        if not is_ours and not _is_signed_by_owner(self._public, theirs["v1a"], message):
            raise SignatureInvalid("no signature is that of a secret we know; check secret")
        if abs(now.timestamp() - sent_at) > self.options.tolerance.total_seconds():
            raise SignatureInvalid("the webhook's time is too far from ours; check the clock", reason="stale")

    def render(
        self,
        event: RecordedEvent,
        target_url: str,  # noqa: ARG002
        secret: Secret,
        now: datetime,
    ) -> WebhookMessage | CannotRender:
        """The event as it came, signed now with `secret`."""
        key = symmetric_key(secret)
        if key is None:
            return CannotRender(
                reason=f"only a symmetric secret ({SYMMETRIC}) can sign; the sender keeps the other kind"
            )
        sent_at = int(now.timestamp())
        signature = hmac_sha256_base64(key, b"%b.%d.%b" % (event.key.encode(), sent_at, event.payload)).decode()
        headers = {
            "content-type": "application/json",
            "webhook-id": event.key,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": f"v1,{signature}",
        }
        return WebhookMessage(headers=headers, body=event.payload)


def symmetric_key(secret: Secret) -> bytes | None:
    """The bytes that sign; None if `secret` is no symmetric one. The prefix may be left out, as the libraries allow."""
    text = secret.reveal()
    if text.startswith(PUBLIC):
        return None
    return _base64(text.removeprefix(SYMMETRIC)) or None


def public_key(secret: Secret) -> Ed25519PublicKey | None:
    """The sender's public key; None if `secret` is none."""
    text = secret.reveal()
    raw = _base64(text.removeprefix(PUBLIC)) if text.startswith(PUBLIC) else None
    try:
        return Ed25519PublicKey.from_public_bytes(raw) if raw else None
    except ValueError:
        return None


def _headers(request: WebhookRequest) -> tuple[str, int, list[str]]:
    """Id, time and signatures, by the names of one family. Raises `SignatureInvalid`."""
    family = next((each for each in PREFIXES if request.header(f"{each}-signature") is not None), None)
    if family is None:
        raise SignatureInvalid("there is no webhook-signature header", reason="no_signature")
    key, time = request.header(f"{family}-id"), request.header(f"{family}-timestamp")
    if not key or not key.isascii() or time is None or not _SECONDS.fullmatch(time):
        raise SignatureInvalid(f"{family}-id or {family}-timestamp is missing or unreadable", reason="bad_header")
    if not EARLIEST.timestamp() <= int(time) < LATEST.timestamp():
        raise SignatureInvalid(f"{family}-timestamp is no time of ours", reason="stale")
    return key, int(time), (request.header(f"{family}-signature") or "").split(" ")


def _is_signed_by_owner(keys: Iterable[Ed25519PublicKey], signatures: Iterable[bytes], message: bytes) -> bool:
    candidates = [raw for text in signatures if (raw := _base64(text)) is not None]
    for key in keys:
        for signature in candidates:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
    return False


def _base64(text: str | bytes) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _read_body(body: bytes) -> _Body:
    """The suggested fields, if the body is an object that has them. Raises `MalformedWebhook` if it is no JSON."""
    decode_webhook(body, _ANY)
    try:
        return _BODY.decode(body)
    except UNREADABLE:
        return _Body()


def _when(timestamp: object) -> datetime | None:
    """The body's own time, if it is one with a zone."""
    if not isinstance(timestamp, str):
        return None
    try:
        time = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.utcoffset() is not None else None


PROVIDER = StandardWebhooks
