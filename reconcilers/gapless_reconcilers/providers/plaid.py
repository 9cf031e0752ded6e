"""Plaid: webhooks with a token whose key is asked from Plaid by its id. Its list of transfer events is not read.

Sources: plaid/plaid-openapi 2020-09-14, plaid.com/docs/api (credentials in headers), plaid.com/docs/api/webhooks/
webhook-verification; read November 2026.
"""

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import ClassVar, Final

import httpx
import msgspec

from gapless_reconcilers.kit.auth import HeaderAuth
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
from gapless_reconcilers.kit.jwt import check_issued, is_es256, read_token

HEADER: Final = "plaid-verification"
BODY_HASH: Final = "request_body_sha256"
ENVIRONMENTS: Final = ("production", "sandbox")
HOSTS: Final = tuple(f"{each}.plaid.com" for each in ENVIRONMENTS)
PATH: Final = "/webhook_verification_key/get"
TOLERANCE: Final = timedelta(minutes=5)
"""Documented for the past; taken for the future too, of which nothing is said."""
_KEPT_FOR: Final = timedelta(hours=1)
_KEY_ID_CHARS: Final = 64


class PlaidOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One client of Plaid."""

    client_id: str
    secret: Secret
    """The secret of the client in that environment: it asks for keys."""
    environment: tuple[str, ...] = ("production",)
    """The environments whose webhooks are taken: `production`, `sandbox`."""


class _Jwk(msgspec.Struct, gc=False):
    alg: str
    kty: str
    crv: str
    kid: str
    x: str
    y: str
    expired_at: int | None = None


class _Key(msgspec.Struct, gc=False):
    key: _Jwk


class _Webhook(msgspec.Struct, gc=False):
    webhook_type: str
    webhook_code: str
    environment: str
    item_id: str | None = None


class Plaid:
    """The webhooks of one client."""

    kind: ClassVar[str] = "plaid"
    Options: ClassVar[type[PlaidOptions]] = PlaidOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.NONE,
        basis=Basis.VENDOR_DOCS,
        remedy=Remedy.NONE,
        rendering=Rendering.IMPOSSIBLE,
        signature_headers=(HEADER,),
        evidence_hosts=HOSTS,
        unproven=(
            "That nothing is missing: there is no list of webhooks. Transfers have a list of events, which is not "
            "read: a webhook only says that there are some. Webhooks have no identity and no time: the key is made of "
            "the token's time and the body. Not verified: whether a key of another client is told to us, how long "
            "Plaid tries, and whether each try has a time of its own; then it is another event. Only Plaid can sign"
        ),
    )

    def __init__(self, options: PlaidOptions) -> None:
        self.options = options

    def auth(self) -> httpx.Auth:
        """Return the client's secret; its id stands in the requests."""
        return HeaderAuth("PLAID-SECRET", self.options.secret)

    def budget_scope(self) -> str:
        """Return the name of the client's budget."""
        return f"plaid:{self.options.client_id}"

    def option_problems(self) -> list[str]:
        """Report environments that Plaid does not have."""
        unknown = [each for each in self.options.environment if each not in ENVIRONMENTS]
        return [f"environment has {each!r}; wanted {' or '.join(ENVIRONMENTS)}" for each in unknown]

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Verify the token, its time, its key and its hash of the body; then return the event."""
        token = read_token(request.required(HEADER), "ES256")
        kid, issued = token.key_id(), check_issued(token.claims.get("iat"), now, TOLERANCE)
        wanted = sha256(request.body).hexdigest().encode()
        if not hmac.compare_digest(wanted, str(token.claims.get(BODY_HASH)).encode("utf-8", "replace")):
            raise SignatureInvalid("the token is about another body")
        if len(kid) > _KEY_ID_CHARS or not kid.isascii():
            raise SignatureInvalid("the token's key has no id of Plaid's", reason="bad_header")
        webhook = peek(request.body, _Webhook)
        if webhook is None:
            raise MalformedWebhook("the body is no webhook of Plaid's")
        if webhook.environment not in ENVIRONMENTS or webhook.environment not in self.options.environment:
            raise SignatureInvalid("its environment is none of options.environment", reason="other_account")
        url = f"https://{webhook.environment}.plaid.com{PATH}"
        answer = evidence.get(f"{url} {kid}")
        if answer is None:
            return self._ask(url, kid)
        key = decode_or_none(answer.content, _Key) if answer.is_success else None
        is_known = key is not None and (key.key.kid, key.key.alg, key.key.crv) == (kid, "ES256", "P-256")
        if key is None or not is_known or not is_es256(token, key.key.x, key.key.y):
            raise SignatureInvalid("the token is not signed with a key of Plaid's")
        if key.key.expired_at is not None and key.key.expired_at <= now.timestamp():
            raise SignatureInvalid("the token's key is out of date", reason="stale")
        return Reply(events=(recordable(None, _event, webhook, request.body, issued),))

    def render(
        self,
        event: RecordedEvent,  # noqa: ARG002
        target_url: str,  # noqa: ARG002
        secret: Secret,  # noqa: ARG002
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """Return the reason why not: only Plaid has the key."""
        return CannotRender(reason="only Plaid can sign its webhooks")

    def _ask(self, url: str, kid: str) -> NeedsEvidence:
        headers = {"PLAID-CLIENT-ID": self.options.client_id}
        wanted = httpx.Request("POST", url, headers=headers, json={"key_id": kid})
        return NeedsEvidence(request=wanted, cache_key=f"{url} {kid}", max_age=_KEPT_FOR, with_credentials=True)


def _event(webhook: _Webhook, body: bytes, issued: float) -> RemoteEvent:
    return RemoteEvent(
        key=f"{webhook.webhook_type}:{webhook.webhook_code}:{int(issued)}:{sha256(body).hexdigest()[:32]}",
        type=f"{webhook.webhook_type}.{webhook.webhook_code}",
        occurred_at=datetime.fromtimestamp(issued, UTC),
        payload=body,
        object_key=webhook.item_id or None,
    )


PROVIDER = Plaid
