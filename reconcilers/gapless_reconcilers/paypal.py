"""PayPal: webhooks that a certificate signs, and the list of a REST app's webhook events.

Sources, read November 2026: paypal-rest-api-specifications `notifications_webhooks_v1.json`, paypalrestsdk 1.13.3
`notifications.py`, PayPal's pages on webhooks and rate limits, PayPal-node-SDK issue 125. NV: not verified.
"""

import binascii
import html
import zlib
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gapless_reconcilers.kit.auth import ClientCredentialsAuth
from gapless_reconcilers.kit.certificates import NotTrusted, is_signed_with, public_roots, read_roots, trusted_key
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    MissingEvent,
    NeedsEvidence,
    Order,
    Page,
    RecordedEvent,
    Registration,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    Subscription,
    WebhookMessage,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.decoding import (
    decode_items,
    decode_or_none,
    decode_response,
    decode_webhook,
    recordable,
    recordable_items,
)
from gapless_reconcilers.kit.errors import SignatureInvalid, UnexpectedShape

ID, TIME, SIGNATURE = "paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig"
CERTIFICATE, ALGORITHM = "paypal-cert-url", "paypal-auth-algo"
RSA: Final = "SHA256withRSA"
DOMAIN: Final = "paypal.com"
SIMULATOR: Final = "WEBHOOK_ID"
"""What the simulator signs in place of a webhook's id, literally."""
KEPT_FOR: Final = timedelta(days=1)
MOST_CERTIFICATES: Final = 8
EVENTS: Final = "/v1/notifications/webhooks-events"
WEBHOOKS: Final = "/v1/notifications/webhooks"


class PayPalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One REST app."""

    client_id: str
    client_secret: Secret
    webhook_id: tuple[str, ...] = ()
    """Ids of our webhook, from the app's page: what is signed names it. Empty: no webhook is accepted."""
    verify: Literal["certificate", "postback"] = "certificate"
    """With PayPal's certificate; or by asking PayPal about each webhook, forged ones too."""
    sandbox: bool = False
    page_size: Annotated[int, msgspec.Meta(ge=1, le=300)] = 100
    """Events asked for per page. The most that PayPal gives is not documented (NV); shorter pages do no harm."""
    trust_roots: str | None = None
    """PEM of the roots to trust in place of the public ones: for tests."""
    api_base: str | None = None
    """Where the API answers; another value only for a fake."""


class _Resource(msgspec.Struct, gc=False):
    id: Any = None


class _Event(msgspec.Struct, gc=False):
    id: str
    event_type: str
    create_time: Annotated[datetime, msgspec.Meta(tz=True)]
    resource: _Resource | None = None


class _Link(msgspec.Struct, gc=False):
    rel: str
    href: str


class _Rows(msgspec.Struct, gc=False):
    events: list[msgspec.Raw]
    links: list[_Link] = []


class _Type(msgspec.Struct, gc=False):
    name: str


class _Webhook(msgspec.Struct, gc=False):
    id: str
    url: str
    event_types: list[_Type]


class _Webhooks(msgspec.Struct, gc=False):
    webhooks: list[msgspec.Raw]


class _Verdict(msgspec.Struct, gc=False):
    verification_status: str


class PayPal:
    """PayPal, bound to one REST app."""

    kind: ClassVar[str] = "paypal"
    Options: ClassVar[type[PayPalOptions]] = PayPalOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.EVENT_LOG,
        basis=Basis.VENDOR_SDK,
        order=Order.UNORDERED,  # newest first by appearance; NV
        resolution=timedelta(seconds=1),
        history=timedelta(days=30),  # of the dashboard; of the API NV
        grace=timedelta(minutes=5),  # a webhook may come before its event is listed (PayPal-node-SDK issue 125)
        remedy=Remedy.LIST,
        rendering=Rendering.IMPOSSIBLE,
        signature_headers=(SIGNATURE, ID, TIME, CERTIFICATE, ALGORITHM),
        evidence_hosts=(f".{DOMAIN}",),
        requests_per_second=5,  # NV: no figure is published
        unproven=(
            "Events of other REST apps of the account. Not verified: how far back the API reaches (the dashboard: 30 "
            "days), the order and the largest page of the list, and whether events are kept while there is no webhook."
        ),
    )

    def __init__(self, options: PayPalOptions) -> None:
        self.options = options
        host = f"https://api-m.sandbox.{DOMAIN}" if options.sandbox else f"https://api-m.{DOMAIN}"
        self._base = (options.api_base or host).rstrip("/")
        self._roots = public_roots() if options.trust_roots is None else read_roots(options.trust_roots)
        self._auth = ClientCredentialsAuth(f"{self._base}/v1/oauth2/token", options.client_id, options.client_secret)
        self._trusted: dict[bytes, tuple[RSAPublicKey, datetime]] = {}

    def auth(self) -> httpx.Auth:
        """A token by client credentials, asked for when it is needed."""
        return self._auth

    def budget_scope(self) -> str:
        """PayPal counts per app (NV)."""
        return f"paypal:{self.options.client_id}"

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """The one event of a webhook, once the certificate, or PayPal's own verdict, is there."""
        sent = {name: _required(request, name) for name in self.capabilities.signature_headers}
        if self.options.verify == "certificate":
            needed = self._by_certificate(sent, request.body, now, evidence)
        else:
            needed = self._by_postback(sent, request.body, evidence)
        if needed is not None:
            return needed
        event = decode_webhook(request.body, _Event)
        return Reply(events=(recordable(None, _remote, event, request.body),))

    def _by_certificate(
        self, sent: dict[str, str], body: bytes, now: datetime, evidence: Evidence
    ) -> NeedsEvidence | None:
        """None if the certificate's owner signed for one of our webhooks. Raises `SignatureInvalid`."""
        if sent[ALGORITHM] != RSA:
            raise SignatureInvalid(f"{ALGORITHM} is not {RSA}", reason="bad_header")
        url = _certificate_url(sent[CERTIFICATE])
        signature = _decoded(sent[SIGNATURE])
        if url not in evidence:
            return NeedsEvidence(request=httpx.Request("GET", url), cache_key=url, max_age=KEPT_FOR)
        key = self._key(evidence[url], now)
        for webhook_id in (*self.options.webhook_id, SIMULATOR):
            if webhook_id and is_signed_with(key, signature, signed_text(sent[ID], sent[TIME], webhook_id, body)):
                if webhook_id == SIMULATOR:
                    raise SignatureInvalid("this is an event of PayPal's simulator", reason="simulator")
                return None
        raise SignatureInvalid("PayPal did not sign this for our webhook_id, or the body was changed on the way")

    def _key(self, answer: httpx.Response, now: datetime) -> RSAPublicKey:
        """The key of a fetched certificate; its chain is followed once a day. Raises `SignatureInvalid`."""
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

    def _by_postback(self, sent: dict[str, str], body: bytes, evidence: Evidence) -> NeedsEvidence | None:
        """None if PayPal says that the webhook is its own. Raises `SignatureInvalid`."""
        decode_webhook(body, msgspec.Raw)
        for webhook_id in filter(None, self.options.webhook_id):
            if webhook_id not in evidence:
                request = self._postback(sent, body, webhook_id)
                return NeedsEvidence(request=request, cache_key=webhook_id, max_age=timedelta(0), with_credentials=True)
            verdict = decode_or_none(evidence[webhook_id].content, _Verdict)
            if verdict and verdict.verification_status == "SUCCESS":
                return None
        raise SignatureInvalid("PayPal says that it did not send this for our webhook_id")

    def _postback(self, sent: dict[str, str], body: bytes, webhook_id: str) -> httpx.Request:
        """The body goes back byte for byte: PayPal is sensitive to the order of keys and the form of numbers."""
        told = {
            "auth_algo": sent[ALGORITHM], "cert_url": sent[CERTIFICATE], "transmission_id": sent[ID],
            "transmission_sig": sent[SIGNATURE], "transmission_time": sent[TIME], "webhook_id": webhook_id,
        }  # fmt: skip
        content = msgspec.json.encode(told)[:-1] + b',"webhook_event":' + body + b"}"
        headers = {"content-type": "application/json"}
        return httpx.Request(
            "POST", f"{self._base}/v1/notifications/verify-webhook-signature", content=content, headers=headers
        )

    def render(
        self,
        event: RecordedEvent,  # noqa: ARG002
        target_url: str,  # noqa: ARG002
        secret: Secret,  # noqa: ARG002
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """Never: only PayPal has the key."""
        return CannotRender(reason="only PayPal can sign as PayPal; use the signature standard")

    def first_request(self, stream: str, window: Window) -> httpx.Request:  # noqa: ARG002
        """`GET /v1/notifications/webhooks-events`; both bounds are inclusive."""
        bounds = {"start_time": _text(window.start), "end_time": _text(window.end)}
        return self._get(EVENTS, page_size=self.options.page_size, **bounds)

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:  # noqa: ARG002
        """The page's events inside `window`. Only a missing next link ends the walk: pages may be short."""
        rows = decode_response(response, _Rows)
        listed = decode_items(rows.events, _Event, "events")
        events = recordable_items("events", _remote, listed, rows.events)
        following = self._next(request, rows.links)
        return Page(events=[event for event in events if event.occurred_at in window], next=following)

    def _next(self, request: httpx.Request, links: Sequence[_Link]) -> httpx.Request | None:
        """The next link as it is given, its ampersands unescaped; to PayPal's list and nowhere else."""
        href = next((html.unescape(link.href) for link in links if link.rel == "next"), None)
        if href is None:
            return None
        base = urlsplit(self._base)
        try:
            url = httpx.URL(href)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if (url.scheme, url.netloc.decode(), url.path) != (base.scheme, base.netloc, f"{base.path}{EVENTS}"):
            raise UnexpectedShape("links[next].href", "another address than that of the list", "a page of the list")
        if url == request.url:
            raise UnexpectedShape("links[next].href", "the page that was just read", "one that moves on")
        return httpx.Request("GET", url)

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """`GET /v1/notifications/webhooks-events/{id}`."""
        return self._get(f"{EVENTS}/{quote(missing.key, safe='')}")

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:  # noqa: ARG002
        """The event, its payload the body as received."""
        return recordable("", _remote, decode_response(response, _Event), msgspec.Raw(response.content))

    def redelivery_request(self, missing: MissingEvent) -> httpx.Request:
        """`POST …/resend`; a webhook that is still being tried is not sent again."""
        body = {"webhook_ids": list(self.options.webhook_id)}
        return httpx.Request("POST", f"{self._base}{EVENTS}/{quote(missing.key, safe='')}/resend", json=body)

    def subscription_request(self) -> httpx.Request:
        """`GET /v1/notifications/webhooks`: an app has at most ten."""
        return self._get(WEBHOOKS)

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """Our webhook, by its id or address. There is no state to be disabled in."""
        rows = decode_items(decode_response(response, _Webhooks).webhooks, _Webhook, "webhooks")
        path = urlsplit(webhook_url).path
        found = next((row for row in rows if row.id in self.options.webhook_id or urlsplit(row.url).path == path), None)
        if found is None:
            return Subscription(healthy=False, reason=f"no webhook of the app has the path {path}, or our webhook_id")
        if urlsplit(found.url).path != path:
            return Subscription(healthy=False, reason=f"our webhook sends to another path than {path}", id=found.id)
        if found.id not in self.options.webhook_id:
            why = f"the webhook at {path} has the id {found.id}; name it in webhook_id, or nothing verifies"
            return Subscription(healthy=False, reason=why, id=found.id)
        return Subscription(healthy=True, reason="", id=found.id, types=tuple(each.name for each in found.event_types))

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:  # noqa: ARG002
        """`POST /v1/notifications/webhooks`; there is no secret."""
        body = {"url": webhook_url, "event_types": [{"name": name} for name in types or ["*"]]}
        return httpx.Request("POST", f"{self._base}{WEBHOOKS}", json=body)

    def read_registration(self, response: httpx.Response) -> Registration:
        """The webhook: its id goes into `webhook_id`."""
        return Registration(id=decode_response(response, _Webhook).id)

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:  # noqa: ARG002
        """A webhook is there or not: there is nothing to switch on."""
        return None

    def _get(self, path: str, **params: str | int) -> httpx.Request:
        return httpx.Request("GET", f"{self._base}{path}", params=params or None)


def signed_text(transmission_id: str, time: str, webhook_id: str, body: bytes) -> bytes:
    """What PayPal signs: `id|time|webhook id|crc32 of the body`, the last as a decimal number."""
    return f"{transmission_id}|{time}|{webhook_id}|{zlib.crc32(body)}".encode("latin-1", "replace")


def _required(request: WebhookRequest, name: str) -> str:
    value = request.header(name)
    if not value:
        raise SignatureInvalid(f"there is no {name}", reason="no_signature")
    return value


def _certificate_url(text: str) -> str:
    """The address of the certificate, which a stranger may have chosen: https, PayPal's host, nothing odd."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    plain = url.scheme == "https" and not url.userinfo and url.port is None and not url.fragment
    if not plain or not url.host.endswith(f".{DOMAIN}"):
        raise SignatureInvalid(f"{CERTIFICATE} is no https address of PayPal's", reason="bad_header")
    return str(url)


def _decoded(signature: str) -> bytes:
    try:
        return b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureInvalid(f"{SIGNATURE} is no base64", reason="bad_header") from None


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _remote(event: _Event, payload: bytes | msgspec.Raw) -> RemoteEvent:
    """The one place where an event of either road gets its identity. Raises `ValueError`."""
    resource_id = event.resource.id if event.resource else None
    return RemoteEvent(
        key=event.id,
        type=event.event_type,
        occurred_at=event.create_time.astimezone(UTC),
        payload=payload,
        object_key=resource_id if isinstance(resource_id, str) and resource_id else None,
    )


PROVIDER = PayPal
