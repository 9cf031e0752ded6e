"""Stripe: v1 snapshot events, signed webhooks, `GET /v1/events`, Connect accounts as streams.

Sources, read autumn 2026: stripe-python 16.1.0 (`_webhook.py`, `_event.py`, `params/_event_list_params.py`),
stripe/openapi, Stripe's pages on webhooks, undelivered events, rate limits and types. NV: not verified.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Annotated, ClassVar, Final

import httpx
import msgspec

from gapless_reconcilers.kit.auth import BearerAuth
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Account,
    Basis,
    Capabilities,
    Coverage,
    Evidence,
    Grant,
    MissingEvent,
    Order,
    Page,
    Pool,
    ReadBudget,
    RecordedEvent,
    Registration,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    StreamPage,
    Subscription,
    WebhookMessage,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.decoders import decode_response
from gapless_reconcilers.kit.pagination import other_size
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.stripe import listing, subscription, thin, webhook
from gapless_reconcilers.providers.stripe.listing import MODES, MOST_PER_PAGE
from gapless_reconcilers.providers.stripe.subscription import repair_request

_KEY_MODES: Final = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}


PERSONAL_DATA: Final = (
    "/data/object/billing_details", "/data/object/customer_details", "/data/object/customer_email",
    "/data/object/customer_name", "/data/object/customer_address", "/data/object/customer_phone",
    "/data/object/customer_shipping", "/data/object/customer_tax_ids", "/data/object/collected_information",
    "/data/object/custom_fields", "/data/object/receipt_email", "/data/object/receipt_url", "/data/object/shipping",
    "/data/object/payment_method_details", "/data/object/last_payment_error", "/data/object/card",
    "/data/object/us_bank_account", "/data/object/sepa_debit", "/data/object/sources", "/data/object/email",
    "/data/object/name", "/data/object/individual_name", "/data/object/business_name", "/data/object/phone",
    "/data/object/address", "/data/object/tax_ids", "/data/object/individual", "/data/object/external_accounts",
    "/data/previous_attributes",
)  # fmt: skip
"""From the types of stripe 15 (Charge, Customer, Invoice, PaymentIntent, PaymentMethod, Checkout Session), read
2026-11-27. NV: `card` and `sources` of old API versions, and the events of accounts."""


class StripeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Stripe account in one mode. A key that may read events, and perhaps webhook endpoints, is enough."""

    api_key: Secret
    """A restricted (`rk_`) or secret (`sk_`) key of the same mode as `livemode`."""
    webhook_secret: tuple[Secret, ...] = ()
    """`whsec_…`, one or, while it is rolled, several. None: no webhook is accepted (audit, `mode = "poll"`)."""
    livemode: bool = True
    """The mode of this source; webhooks of the other mode are recorded, never expected, nor delivered by default."""
    connect: bool = False
    """Also list each connected account, as a separate stream."""
    api_version: str | None = None
    """The API version of our webhook endpoint; None: unknown."""
    tolerance: timedelta = timedelta(seconds=300)
    """The greatest age of a signature; 0 switches the check off. Default: the official SDK's."""
    page_limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE
    """Events requested per page."""
    api_base: str = "https://api.stripe.com"
    """The address of the API; another value only for a fake."""


class Stripe:
    """Stripe, for one account and mode."""

    kind: ClassVar[str] = "stripe"
    Options: ClassVar[type[StripeOptions]] = StripeOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.EVENT_LOG,
        basis=Basis.VENDOR_SDK,
        order=Order.NEWEST_FIRST,
        resolution=timedelta(seconds=1),
        history=timedelta(days=30),
        grace=timedelta(seconds=60),  # NV: no visibility delay is documented
        remedy=Remedy.LIST,
        rendering=Rendering.EQUIVALENT,
        signature_headers=(webhook.SIGNATURE_HEADER,),
        requests_per_second=20,  # of 25 that one endpoint is granted by default (Rate limits page)
        budget=ReadBudget(requests=10_000, period=timedelta(days=30)),  # the least granted
        grant=Grant(
            requests=10_000,
            period=timedelta(days=30),
            per_event=500,
            types=listing.EARNING,
            source='docs.stripe.com/rate-limits, "API read request allocations"; NV: what counts as a transaction',
            read_on=date(2026, 11, 27),
        ),
        personal_data=PERSONAL_DATA,
        unproven=(
            'Types marked "Selection required" exist only if an endpoint names them ("*" does not); the list says '
            "nothing of them otherwise, nor of thin (v2) events without a snapshot twin. "
            "Not verified: how soon an event is listed."
        ),
    )

    def __init__(self, options: StripeOptions) -> None:
        self.options = options
        self._keys = SigningKeys(options.webhook_secret)
        self._key_mode = _KEY_MODES.get(options.api_key.reveal()[:8])
        base = options.api_base.rstrip("/")
        self._api = listing.StripeApi(base, options.page_limit, options.livemode, options.connect)
        if options.connect and self.capabilities.grant is not None:
            pooled = replace(self.capabilities.grant, pool=Pool.PLATFORM)
            self.capabilities = replace(self.capabilities, grant=pooled)

    def auth(self) -> httpx.Auth:
        return BearerAuth(self.options.api_key)

    def budget_scope(self) -> str:
        """`stripe:` and 64 bits of the key's SHA-256.

        Stripe counts per account; the key identifies it before any request is sent. The key has far more entropy
        than can be searched, so the digest reveals nothing of it. Two keys of one account count separately, and a
        rolled key starts again at zero: use one key per source.
        """
        return f"stripe:{hashlib.sha256(self.options.api_key.reveal().encode()).hexdigest()[:16]}"

    def option_problems(self) -> list[str]:
        problems = []
        of_key = self._key_mode
        if not self.options.api_key.reveal():
            pass  # webhooks alone need no key
        elif of_key is None:
            problems.append("api_key has none of the beginnings sk_live_, rk_live_, sk_test_, rk_test_; check it")
        elif of_key is not self.options.livemode:
            problems.append(
                f"api_key is a {MODES[of_key]} key and livemode is {str(self.options.livemode).lower()}; "
                f"use a {MODES[self.options.livemode]} key or set livemode = {str(of_key).lower()}"
            )
        problems += [
            "webhook_secret does not begin with whsec_; copy it from the endpoint's page"
            for secret in self.options.webhook_secret
            if not secret.reveal().startswith("whsec_")
        ]
        return problems

    def account_request(self) -> httpx.Request:
        return self._api.get("/v1/account")

    def read_account(self, response: httpx.Response) -> Account:
        """Return the account id, and the mode of the key, because the account does not name it."""
        return Account(fingerprint=decode_response(response, listing.StripeAccount).id, livemode=self._key_mode)

    def own_livemode(self) -> bool:
        return self.options.livemode

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        webhook.verify(request, self._keys, self.options.tolerance, now)
        return Reply(events=(webhook.read(self._api, request.body),))

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified webhook claims."""
        return webhook.claimed(request.body)

    def render(self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> WebhookMessage:  # noqa: ARG002
        return webhook.render(event.payload, event.stream, secret, now)

    def payload_version(self, payload: bytes) -> str | None:
        return webhook.version_of(payload)

    def endpoint_version(self) -> str | None:
        return self.options.api_version

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        return listing.page_request(self._api, stream, window, limit=self.options.page_limit)

    def other_requests(self, stream: str, window: Window) -> list[httpx.Request]:
        """Request the events in pages of another size. Stripe has no other order: a page before an event needs one."""
        limit = other_size(self.options.page_limit, MOST_PER_PAGE)
        return [listing.page_request(self._api, stream, window, limit=limit)]

    def grant_request(self, stream: str, window: Window) -> httpx.Request:
        """Request the succeeded charges: each is a transaction, so there are at least as many."""
        return listing.page_request(self._api, stream, window, limit=MOST_PER_PAGE, **listing.ONLY_EARNING)

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        return listing.read_page(self._api, request, response, stream, window)

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        ask = thin.detail_request if thin.is_alone(missing.type) else listing.detail_request
        return ask(self._api, missing)

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        read = thin.read_detail if thin.is_alone(missing.type) else listing.read_detail
        return read(self._api, missing, response)

    def is_thin(self, payload: bytes) -> bool:
        return thin.is_thin(payload)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        listing.judge(response, now)

    def streams_request(self) -> httpx.Request | None:
        return listing.accounts_request(self._api) if self.options.connect else None

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:
        return listing.read_accounts(self._api, request, response)

    def subscription_request(self) -> httpx.Request:
        """`GET /v1/webhook_endpoints`: an account has fewer than one page of them."""
        return self._api.get(subscription.ENDPOINTS, limit=MOST_PER_PAGE)

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        return subscription.read(response, webhook_url)

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:  # noqa: ARG002
        return subscription.register_request(self._api, webhook_url, types, self.options.api_version)

    def read_registration(self, response: httpx.Response) -> Registration:
        return subscription.read_registration(response)

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:  # noqa: ARG002
        return repair_request(self._api, subscription)


PROVIDER = Stripe
