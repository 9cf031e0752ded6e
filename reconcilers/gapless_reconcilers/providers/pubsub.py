"""Google Cloud Pub/Sub, push subscriptions with authentication: a token of Google's stands for a signature.

Sources: google-auth 2.x (`id_token.verify_oauth2_token`), cloud.google.com/pubsub/docs/push and
authenticate-push-subscriptions; read November 2026. Any Google account can get a token for our address, so the accounts
that may send are named in the options. The token does not cover the body.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gapless_reconcilers.kit.certificates import is_signed_with
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Answer,
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
from gapless_reconcilers.kit.decoders import decode_or_none, decode_webhook, peek, recordable
from gapless_reconcilers.kit.errors import SignatureInvalid
from gapless_reconcilers.kit.jwt import Token, check_not_after, read_token

HEADER: Final = "authorization"
CERTIFICATES: Final = "https://www.googleapis.com/oauth2/v1/certs"
"""An object of certificates by key id, which google-auth asks for too."""
AGAIN: Final = f"{CERTIFICATES}#again"
"""The cache key under which they are asked for once more, if a token names a key that they lack."""
ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
LEEWAY: Final = timedelta(seconds=30)
_KEPT_FOR: Final = timedelta(hours=1)
_AGAIN_AFTER: Final = timedelta(minutes=1)
_PREFIX: Final = "Bearer "
_ACKNOWLEDGED: Final = Answer(status=204)


class PubSubOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The push subscriptions of one source."""

    audience: tuple[str, ...]
    """What the tokens are made for: that of the subscription, which is its address if none is set."""
    email: tuple[str, ...]
    """The service accounts that the subscriptions send with."""
    subscription: tuple[str, ...] = ()
    """The subscriptions whose messages are taken, such as `projects/acme/subscriptions/orders`; empty: all of these
    accounts."""


class _Message(msgspec.Struct, gc=False, rename="camel"):
    message_id: str
    publish_time: Annotated[datetime, msgspec.Meta(tz=True)]
    attributes: dict[str, str] = {}
    ordering_key: str = ""


class _Push(msgspec.Struct, gc=False):
    message: _Message
    subscription: str


class PubSub:
    """The subscriptions that push to one address."""

    kind: ClassVar[str] = "pubsub"
    Options: ClassVar[type[PubSubOptions]] = PubSubOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.NONE,
        basis=Basis.VENDOR_SDK,
        remedy=Remedy.NONE,
        rendering=Rendering.IMPOSSIBLE,
        signs_body=False,
        signature_headers=(HEADER,),
        evidence_hosts=("www.googleapis.com",),
        unproven=(
            "That nothing is missing: there is no list, and what was not acknowledged is kept for the days of the "
            "subscription. The token says nothing of the body: who holds one can send others for an hour. Only Google "
            "can sign. Unwrapped messages, and subscriptions without authentication, are refused. Not verified: the "
            "statuses but 204 that acknowledge"
        ),
    )

    def __init__(self, options: PubSubOptions) -> None:
        self.options = options

    def auth(self) -> None:
        """Return None: nothing is asked with credentials."""

    def budget_scope(self) -> str:
        """Return the name of a budget that is never used."""
        return "pubsub"

    def carried_secrets(self) -> Mapping[str, tuple[str, ...]]:
        """Return no value: Google makes each token anew. The header is kept nowhere."""
        return {HEADER: ()}

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Verify the token with the certificate that it names, then return the message."""
        text = request.required(HEADER, hint="switch authentication of the subscription on")
        token = read_token(text.removeprefix(_PREFIX), "RS256")
        self._check(token, now)
        kid, found = token.key_id(), None
        for cache_key, max_age in ((CERTIFICATES, _KEPT_FOR), (AGAIN, _AGAIN_AFTER)):
            answer = evidence.get(cache_key)
            if answer is None:
                wanted = httpx.Request("GET", CERTIFICATES)
                return NeedsEvidence(request=wanted, cache_key=cache_key, max_age=max_age)
            found = _key_of(answer, kid)
            if found is not None:
                break
        if found is None or not is_signed_with(found, token.signature, token.message):
            raise SignatureInvalid("the token is not Google's")
        push = decode_webhook(request.body, _Push)
        if self.options.subscription and push.subscription not in self.options.subscription:
            raise SignatureInvalid("its subscription is none of options.subscription", reason="other_account")
        return Reply(events=(recordable(None, _event, push, request.body),), answer=_ACKNOWLEDGED)

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified message claims."""
        claimed = peek(request.body, _Push)
        return () if claimed is None else (claimed.message.message_id,)

    def render(
        self,
        event: RecordedEvent,  # noqa: ARG002
        target_url: str,  # noqa: ARG002
        secret: Secret,  # noqa: ARG002
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """Return the reason why not: only Google has the key."""
        return CannotRender(reason="only Google can sign the tokens of Pub/Sub")

    def _check(self, token: Token, now: datetime) -> None:
        """Raise `SignatureInvalid` unless the claims are those of a subscription of ours. They may be made up."""
        claims = token.claims
        if claims.get("iss") not in ISSUERS:
            raise SignatureInvalid("the token's iss is not Google", reason="bad_header")
        if claims.get("aud") not in tuple(filter(None, self.options.audience)):
            raise SignatureInvalid("the token's aud is none of options.audience", reason="other_account")
        if claims.get("email") not in self.options.email or claims.get("email_verified") is not True:
            raise SignatureInvalid("the token's email is none of options.email", reason="other_account")
        check_not_after(claims.get("exp"), now, LEEWAY)


def _key_of(answer: httpx.Response, kid: str) -> RSAPublicKey | None:
    """Return the key with this id; None: there is none."""
    pem = (decode_or_none(answer.content, dict[str, str]) or {}).get(kid) if answer.is_success else None
    if pem is None:
        return None
    try:
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    except ValueError:
        return None
    return key if isinstance(key, RSAPublicKey) else None


def _event(push: _Push, body: bytes) -> RemoteEvent:
    message = push.message
    return RemoteEvent(
        key=message.message_id,
        type=message.attributes.get("eventType") or "message",
        occurred_at=message.publish_time.astimezone(UTC),
        payload=body,
        object_key=message.ordering_key or None,
    )


PROVIDER = PubSub
