"""PayPal for one REST app: its options, its requests, and the members of the contract."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import quote

import httpx
import msgspec

from gapless_reconcilers.kit.auth import ClientCredentialsAuth
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Basis,
    Capabilities,
    Coverage,
    Evidence,
    MissingEvent,
    NeedsEvidence,
    Order,
    Remedy,
    Rendering,
    Reply,
    Secret,
    Subscription,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.providers.paypal import listing, subscription, webhook
from gapless_reconcilers.providers.paypal.webhook import DOMAIN

EVENTS: Final = "/v1/notifications/webhooks-events"
WEBHOOKS: Final = "/v1/notifications/webhooks"
POSTBACK: Final = "/v1/notifications/verify-webhook-signature"


PERSONAL_DATA: Final = (
    "/resource/payer", "/resource/payee", "/resource/subscriber", "/resource/payment_source",
    "/resource/purchase_units/*/shipping", "/resource/purchase_units/*/payee", "/resource/note_to_payer",
    "/resource/primary_recipients", "/resource/additional_recipients", "/resource/invoicer",
    "/resource/disputed_transactions/*/buyer", "/resource/messages", "/resource/evidences",
    "/resource/payout_item/receiver", "/resource/shipping_address",
)  # fmt: skip
"""From PayPal's OpenAPI descriptions (github.com/paypal/paypal-rest-api-specifications: checkout_orders_v2,
payments_payment_v2, billing_subscriptions_v1, invoicing_v2), read 2026-11-27. NV: disputes and payouts, and
`shipping_address` beside `purchase_units`."""


class PayPalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One REST app."""

    client_id: str
    client_secret: Secret
    webhook_id: tuple[str, ...] = ()
    """Ids of our webhook, from the app's page: the signed text has it. Empty: no webhook is accepted."""
    verify: Literal["certificate", "postback"] = "certificate"
    """Verify by PayPal's certificate, or by a request to PayPal for each webhook, forged ones too."""
    sandbox: bool = False
    page_size: Annotated[int, msgspec.Meta(ge=1, le=300)] = 100
    """Events requested per page. PayPal's maximum is not documented (NV); shorter pages do no harm."""
    trust_roots: str | None = None
    """Trusted roots in PEM instead of the public ones; for tests."""
    api_base: str | None = None
    """The address of the API; another value only for a fake."""


class PayPal:
    """PayPal, for one REST app."""

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
        identity_unsigned=True,  # a CRC32 stands for the body, and another body can be made to have it
        message_headers=(webhook.ID, webhook.TIME),
        signature_headers=webhook.HEADERS,
        evidence_hosts=webhook.HOSTS,
        requests_per_second=5,  # NV: no figure is published
        # "do not poll" (developer.paypal.com, Rate limiting guidelines, read 2026-11-27): a minute is our choice
        least_interval=timedelta(minutes=1),
        personal_data=PERSONAL_DATA,
        unproven=(
            "Events of other REST apps of the account. Not verified: how far back the API reaches (the dashboard: 30 "
            "days), the order and the largest page of the list, and whether events are kept while there is no webhook."
        ),
    )

    def __init__(self, options: PayPalOptions) -> None:
        self.options = options
        host = f"https://api-m.sandbox.{DOMAIN}" if options.sandbox else f"https://api-m.{DOMAIN}"
        self._base = (options.api_base or host).rstrip("/")
        self._auth = ClientCredentialsAuth(f"{self._base}/v1/oauth2/token", options.client_id, options.client_secret)
        self._proof: webhook.ByCertificate | webhook.ByPostback
        if options.verify == "certificate":
            self._proof = webhook.ByCertificate(options.webhook_id, options.trust_roots)
        else:
            self._proof = webhook.ByPostback(options.webhook_id, self._base + POSTBACK)

    def auth(self) -> httpx.Auth:
        """Return client credentials; the token is requested when it is needed."""
        return self._auth

    def budget_scope(self) -> str:
        """Return a name with the app: PayPal counts per app (NV)."""
        return f"paypal:{self.options.client_id}"

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Return the one event of a webhook, once the certificate or PayPal's response is in `evidence`."""
        return self._proof.needed(request, now, evidence) or Reply(events=(webhook.read(request.body),))

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified webhook claims."""
        return webhook.claimed(request.body)

    def first_request(self, stream: str, window: Window) -> httpx.Request:  # noqa: ARG002
        """`GET /v1/notifications/webhooks-events`."""
        return self._ask("GET", EVENTS, params={"page_size": self.options.page_size, **listing.bounds(window)})

    def other_requests(self, stream: str, window: Window) -> list[httpx.Request]:  # noqa: ARG002
        """Request the events in pages of two thirds of the size: the largest is not documented."""
        size = max(1, self.options.page_size * 2 // 3)
        return [self._ask("GET", EVENTS, params={"page_size": size, **listing.bounds(window)})]

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """`GET /v1/notifications/webhooks-events/{id}`."""
        return self._ask("GET", f"{EVENTS}/{quote(missing.key, safe='')}")

    def redelivery_request(self, missing: MissingEvent) -> httpx.Request:
        """`POST …/resend`. PayPal does not resend a webhook that it still retries."""
        body = {"webhook_ids": list(self.options.webhook_id)}
        return self._ask("POST", f"{EVENTS}/{quote(missing.key, safe='')}/resend", json=body)

    def subscription_request(self) -> httpx.Request:
        """`GET /v1/notifications/webhooks`: an app has at most ten."""
        return self._ask("GET", WEBHOOKS)

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        return subscription.read(response, webhook_url, self.options.webhook_id)

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:  # noqa: ARG002
        """`POST /v1/notifications/webhooks`."""
        return self._ask("POST", WEBHOOKS, json=subscription.new(webhook_url, types))

    render = staticmethod(webhook.render)
    read_page = staticmethod(listing.read_page)
    read_detail = staticmethod(listing.read_detail)
    read_registration = staticmethod(subscription.read_registration)
    repair_request = staticmethod(subscription.repair_request)

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Request:
        return httpx.Request(method, self._base + path, **content)


PROVIDER = PayPal
