"""Braintree: webhooks as a form with signed XML, and the challenge that proves our endpoint. There is no list.

Sources: braintree 4.48.0 (PyPI: webhook_notification_gateway.py, util/crypto.py), 3.40.0 (npm), Braintree's
documentation of webhooks; read November 2026.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha1, sha256
from hmac import compare_digest, digest
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET

import msgspec

from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Answer,
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
from gapless_reconcilers.kit.decoders import decode_or_none, recordable
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid

PAYLOAD, SIGNATURE, CHALLENGE = "bt_payload", "bt_signature", "bt_challenge"
TEST: Final = "check"
"""The kind of a test notification: it records nothing."""
MOST_FIELDS, MOST_PAIRS, MOST_DEPTH = 10, 32, 50
_CHALLENGE: Final = re.compile(r"[a-f0-9]{20,32}", re.ASCII)
_ILLEGAL: Final = re.compile(rb"[^A-Za-z0-9+=/\n]")
_NOT_A_PAGE: Final = (("X-Content-Type-Options", "nosniff"),)


class BraintreeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The API keys of one merchant account."""

    key: tuple[Secret, ...] = ()
    """`<public key>:<private key>`, one or, while it changes, several."""


class _Recorded(msgspec.Struct, gc=False):
    bt_payload: str


class Braintree:
    """The webhooks of one merchant account."""

    kind: ClassVar[str] = "braintree"
    Options: ClassVar[type[BraintreeOptions]] = BraintreeOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.NONE,
        basis=Basis.VENDOR_SDK,
        remedy=Remedy.NONE,
        rendering=Rendering.EXACT,
        signature_headers=(),
        methods=("POST", "GET"),
        unproven=(
            "That nothing is missing: there is no list. Events have no identity: the key is made of kind, subject and "
            "time, which has whole seconds. An old webhook that is sent again is a duplicate. An event is recorded as "
            "JSON, made from its XML, with the text that Braintree signed beside it (bt_payload)"
        ),
    )

    def __init__(self, options: BraintreeOptions) -> None:
        self.options = options
        self._pairs = tuple(pair for each in options.key if (pair := _pair(each)) is not None)

    def auth(self) -> None:
        """Return None: nothing is asked."""

    def budget_scope(self) -> str:
        """Return the name of a budget that is never used."""
        return "braintree"

    def option_problems(self) -> list[str]:
        """Report keys that can verify nothing."""
        lacking = len(self.options.key) - len(self._pairs)
        return [f"{lacking} of key can verify nothing; wanted <public key>:<private key>"] if lacking else []

    def read_webhook(
        self,
        request: WebhookRequest,
        now: datetime,  # noqa: ARG002 - the time is not judged
        evidence: Evidence = NO_EVIDENCE,  # noqa: ARG002
    ) -> Reply:
        """Answer a challenge, or verify the form and return its event."""
        if request.method != "POST":
            return self._answer_challenge(request)
        form = _form(request.body)
        payload = form.get(PAYLOAD, "").encode("utf-8", "replace")
        if not payload or _ILLEGAL.search(payload):
            raise SignatureInvalid(f"{PAYLOAD} is no base64", reason="bad_header")
        self._verify(form.get(SIGNATURE, ""), payload)
        notification = read_notification(payload)
        if notification.get("kind") == TEST:
            return Reply(events=())
        return Reply(events=(recordable(None, _event, notification, payload.decode()),))

    def render(
        self,
        event: RecordedEvent,
        target_url: str,  # noqa: ARG002
        secret: Secret,
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """Return the form as Braintree sends it, signed with `secret`: `<public key>:<private key>`."""
        recorded, pair = decode_or_none(event.payload, _Recorded), _pair(secret)
        if recorded is None or pair is None:
            return CannotRender(reason="the event was not Braintree's, or the secret is no <public key>:<private key>")
        signature = f"{pair[0]}|{_mac(pair[1], recorded.bt_payload.encode())}"
        body = urlencode({SIGNATURE: signature, PAYLOAD: recorded.bt_payload}).encode()
        return WebhookMessage(headers={"content-type": "application/x-www-form-urlencoded"}, body=body)

    def _answer_challenge(self, request: WebhookRequest) -> Reply:
        challenge = request.param(CHALLENGE) if request.method == "GET" else None
        if challenge is None or not _CHALLENGE.fullmatch(challenge) or not self._pairs:
            raise SignatureInvalid(f"there is no {CHALLENGE} of 20 to 32 hexadecimal digits", reason="no_signature")
        public, private = self._pairs[0]
        body = f"{public}|{_mac(private, challenge.encode())}".encode()
        return Reply(events=(), answer=Answer(body=body, headers=_NOT_A_PAGE))

    def _verify(self, signatures: str, payload: bytes) -> None:
        """Raise `SignatureInvalid` unless one of our keys signed the payload; a line may be missing at its end."""
        pairs = [pair.split("|", 1) for pair in signatures.split("&", MOST_PAIRS)[:MOST_PAIRS] if "|" in pair]
        ours = [(private, signature) for public, private in self._pairs for name, signature in pairs if name == public]
        if not ours:
            raise SignatureInvalid("no signature is of a public key of ours", reason="no_signature")
        for private, signature in ours:
            received = signature.encode("utf-8", "replace")
            if any(compare_digest(_mac(private, each).encode(), received) for each in (payload, payload + b"\n")):
                return
        raise SignatureInvalid("the signature is that of no private key we know")


def read_notification(payload: bytes) -> dict[str, Any]:
    """Return the notification in a payload. Raises `MalformedWebhook`."""
    try:
        text = b64decode(payload)
        if b"<!" in text:
            raise MalformedWebhook("the payload declares types or entities, which Braintree's does not")
        root = ET.fromstring(text)  # noqa: S314 - it is signed, and declares no entities
        found = _value(root, MOST_DEPTH)
    except (ValueError, ET.ParseError) as error:
        raise MalformedWebhook(f"the payload is no XML: {type(error).__name__}") from None
    if root.tag != "notification" or not isinstance(found, dict):
        raise MalformedWebhook("the payload is no notification")
    return found


def _value(element: ET.Element, depth: int) -> Any:
    """Return an element as JSON has it: an array, an object, a text, or null. Raises `ValueError`."""
    if not depth:
        raise ValueError("nested too deeply")
    kind, text = element.get("type"), element.text or ""
    if kind == "array":
        return [_value(each, depth - 1) for each in element]
    if len(element):
        return {each.tag: _value(each, depth - 1) for each in element}
    if element.get("nil") == "true":
        return None
    if kind == "boolean":
        return text in ("true", "1")
    return int(text) if kind == "integer" else text


def _event(notification: dict[str, Any], payload: str) -> RemoteEvent:
    kind, written = str(notification["kind"]), str(notification["timestamp"])
    time, subject = datetime.fromisoformat(written), next(_ids(notification.get("subject")), None)
    body = msgspec.json.encode({PAYLOAD: payload, "notification": notification})
    mark = subject or sha256(payload.strip().encode()).hexdigest()
    return RemoteEvent(
        key=f"{kind}:{mark}:{written}",
        type=kind,
        occurred_at=(time if time.utcoffset() is not None else time.replace(tzinfo=UTC)).astimezone(UTC),
        payload=body,
        object_key=subject,
    )


def _ids(value: object) -> Iterator[str]:
    """Yield the id of what the notification is about: that of an object in the subject."""
    for each in value.values() if isinstance(value, dict) else ():
        found = each.get("id") if isinstance(each, dict) else None
        if isinstance(found, str) and found:
            yield found


def _form(body: bytes) -> dict[str, str]:
    """Return the fields of a form, each once. Raises `SignatureInvalid`."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise SignatureInvalid("the body is no form of Braintree's", reason="malformed") from None
    if len(dict(pairs)) != len(pairs):
        raise SignatureInvalid("a field of the form is sent twice", reason="malformed")
    return dict(pairs)


def _pair(secret: Secret) -> tuple[str, str] | None:
    """Return the public and the private key; None if they are not both there."""
    public, _, private = secret.reveal().strip().partition(":")
    return (public, private) if public and private else None


def _mac(private: str, message: bytes) -> str:
    """Return HMAC-SHA1 of `message`; its key is the SHA-1 of the private key."""
    return digest(sha1(private.encode()).digest(), message, "sha1").hex()  # noqa: S324 - Braintree's


PROVIDER = Braintree
