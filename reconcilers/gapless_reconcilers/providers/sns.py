"""Amazon SNS over HTTPS: signed messages of topics, and the confirmation of a subscription. There is no list.

Sources: sns-validator 0.3.5 (npm), aws-php-sns-message-validator, AWS's documentation of message delivery retries;
read November 2026. Anybody can subscribe our address to a topic of theirs, and those messages are signed just as well:
so the topics are named in the options, and a message of another one is refused before anything is fetched for it.
"""

import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final

import httpx
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    NeedsEvidence,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoders import decode_or_none, peek, recordable
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid
from gapless_reconcilers.kit.signatures import require_single_names

HEADER: Final = "x-amz-sns-message-type"
HOSTS: Final = (".amazonaws.com", ".amazonaws.com.cn")
NOTIFICATION: Final = "Notification"
CONFIRMATIONS: Final = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
_HOST: Final = r"https://sns\.[a-z]{2,3}(?:-[a-z]{1,20}){1,3}-\d{1,2}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE: Final = re.compile(rf"{_HOST}/[\w.-]{{1,200}}\.pem", re.ASCII)
_SUBSCRIBE: Final = re.compile(rf"{_HOST}/\?Action=ConfirmSubscription&[\w:%&=.~-]{{1,2000}}", re.ASCII)
_KEPT_FOR: Final = timedelta(days=1)
_HASHES: Final = {"1": SHA1, "2": SHA256}
_NOTHING: Final = Reply(events=())


class SnsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topics of one source."""

    topic_arn: tuple[str, ...]
    """The topics whose messages are taken."""
    confirm: bool = True
    """True if a subscription to one of them is confirmed; False: a person does it."""


class Message(msgspec.Struct, gc=False, rename="pascal"):
    """A message as SNS sends it. What is not named here is not signed."""

    type: str
    message_id: str
    topic_arn: str
    message: str
    timestamp: str
    signature_version: str
    signature: str
    signing_cert_url: str = msgspec.field(name="SigningCertURL")
    subject: str | None = None
    token: str | None = None
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)

    def signed(self) -> bytes:
        """Return the text that is signed: fields and their values in an order, each on its own line."""
        if self.type == NOTIFICATION:
            named = {"Message": self.message, "MessageId": self.message_id, "Subject": self.subject}
        else:
            named = {"Message": self.message, "MessageId": self.message_id, "SubscribeURL": self.subscribe_url}
        named |= {"Timestamp": self.timestamp}
        named |= {"Token": self.token} if self.type != NOTIFICATION else {}
        named |= {"TopicArn": self.topic_arn, "Type": self.type}
        return "".join(f"{name}\n{value}\n" for name, value in named.items() if value is not None).encode()


class _Times(msgspec.Struct, gc=False, rename="pascal"):
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]


class _Key(msgspec.Struct, gc=False, rename="pascal"):
    message_id: str


class Sns:
    """The topics that send to one address."""

    kind: ClassVar[str] = "sns"
    Options: ClassVar[type[SnsOptions]] = SnsOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.NONE,
        basis=Basis.VENDOR_SDK,
        remedy=Remedy.NONE,
        rendering=Rendering.IMPOSSIBLE,
        signature_headers=(HEADER,),
        evidence_hosts=HOSTS,
        unproven=(
            "That nothing is missing: there is no list, and what SNS gave up is kept only in a dead-letter queue. "
            "UnsubscribeURL is not signed. Only SNS can sign. Raw delivery has no signature and is refused"
        ),
    )

    def __init__(self, options: SnsOptions) -> None:
        self.options = options

    def auth(self) -> None:
        """Return None: nothing is asked with credentials."""

    def budget_scope(self) -> str:
        """Return the name of a budget that is never used."""
        return "sns"

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Verify with the certificate that the message names, on a host of SNS; then confirm, or return the event."""
        kind, message = request.required(HEADER), decode_or_none(request.body, Message)
        if message is None or message.type != kind or kind not in (NOTIFICATION, *CONFIRMATIONS):
            raise SignatureInvalid("the body is no message of SNS; is raw delivery on?", reason="malformed")
        require_single_names(request.body)
        if message.topic_arn not in self.options.topic_arn:
            raise SignatureInvalid("its topic is none of options.topic_arn", reason="other_account")
        if not _CERTIFICATE.fullmatch(message.signing_cert_url):
            raise SignatureInvalid("its certificate is at no address of SNS", reason="bad_header")
        certificate = evidence.get(message.signing_cert_url)
        if certificate is None:
            return _fetch(message.signing_cert_url, message.signing_cert_url, _KEPT_FOR)
        _verify(message, certificate, now)
        if kind == NOTIFICATION:
            return Reply(events=(recordable(None, _event, message, request.body),))
        return self._confirm(message, evidence) if kind == CONFIRMATIONS[0] and self.options.confirm else _NOTHING

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified message claims."""
        claimed = peek(request.body, _Key)
        return () if claimed is None else (claimed.message_id,)

    def render(
        self,
        event: RecordedEvent,  # noqa: ARG002
        target_url: str,  # noqa: ARG002
        secret: Secret,  # noqa: ARG002
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """Return the reason why not: only SNS has the key."""
        return CannotRender(reason="only SNS can sign its messages")

    def _confirm(self, message: Message, evidence: Evidence) -> Reply | NeedsEvidence:
        """Ask for the address that confirms the subscription, once; its answer is the evidence."""
        url = message.subscribe_url or ""
        if not _SUBSCRIBE.fullmatch(url) or httpx.URL(url).params.get("TopicArn") != message.topic_arn:
            raise MalformedWebhook("the address that confirms is none of SNS for this topic; nothing was asked there")
        answer = evidence.get(url)
        if answer is None:
            return _fetch(url, url, timedelta(0))
        if not answer.is_success:
            raise MalformedWebhook(f"the subscription could not be confirmed: SNS answered {answer.status_code}")
        return _NOTHING


def _fetch(url: str, cache_key: str, max_age: timedelta) -> NeedsEvidence:
    return NeedsEvidence(request=httpx.Request("GET", url), cache_key=cache_key, max_age=max_age)


def _verify(message: Message, certificate: httpx.Response, now: datetime) -> None:
    """Raise `SignatureInvalid` unless the certificate's key signed the message.

    No chain is verified, as in AWS's own library: the certificate came by https from a host of SNS.
    """
    algorithm = _HASHES.get(message.signature_version)
    try:
        leaf = x509.load_pem_x509_certificate(certificate.content)
        signature = b64decode(message.signature, validate=True)
    except ValueError:
        raise SignatureInvalid("its certificate or its signature cannot be read", reason="bad_header") from None
    key = leaf.public_key()
    is_in_time = leaf.not_valid_before_utc <= now.astimezone(UTC) <= leaf.not_valid_after_utc
    if algorithm is None or not isinstance(key, RSAPublicKey) or not is_in_time or not certificate.is_success:
        raise SignatureInvalid("its certificate is out of date, or of a kind that SNS does not use")
    try:
        key.verify(signature, message.signed(), PKCS1v15(), algorithm())
    except InvalidSignature:
        raise SignatureInvalid("the signature is not that of SNS") from None


def _event(message: Message, body: bytes) -> RemoteEvent:
    times = msgspec.convert({"Timestamp": message.timestamp}, _Times)
    return RemoteEvent(
        key=message.message_id,
        type=NOTIFICATION,
        occurred_at=times.timestamp.astimezone(UTC),
        payload=body,
        object_key=message.topic_arn,
    )


PROVIDER = Sns
