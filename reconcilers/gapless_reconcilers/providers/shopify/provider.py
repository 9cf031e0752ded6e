"""Shopify: signed webhooks whose bodies are resources, and GraphQL lists of the present state of each resource.

Sources, read November 2026: @shopify/shopify-api 13.1.0 (`webhooks/validate`, `webhooks/types`), shopify.dev on
delivery structure, verifying deliveries, webhookSubscriptions, limits, paging and search. NV: not verified.

Each resource is a stream; the account's own stream has events that no list shows, such as `app/uninstalled`. A webhook
is the delivery of one subscription, a listed item the state of one object. They are compared by object and version: the
gid and `updated_at`, to the second in webhook and list (list: changelog of October 2026; body: by its examples).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal

import httpx
import msgspec

from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Account,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    Grant,
    Order,
    Page,
    Quota,
    RecordedEvent,
    Registration,
    Rendering,
    Reply,
    Secret,
    StreamPage,
    Subscription,
    WebhookMessage,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.errors import UnexpectedShape
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.shopify import graphql, listing, subscription, webhook
from gapless_reconcilers.providers.shopify.graphql import MOST_PER_PAGE

_SHOP_FORM: Final = re.compile(r"[a-z0-9][a-z0-9-]*\.myshopify\.com")
_VERSION_FORM: Final = re.compile(r"20\d\d-(01|04|07|10)|unstable")


PERSONAL_DATA: Final = (
    "/customer", "/email", "/contact_email", "/phone", "/company", "/billing_address", "/shipping_address",
    "/client_details", "/browser_ip", "/payment_details", "/note", "/note_attributes", "/order_status_url",
    "/first_name", "/last_name", "/addresses", "/default_address", "/fulfillments/*/destination",
)  # fmt: skip
"""Order and Customer of Shopify's own library (github.com/Shopify/shopify-api-ruby, 2024-10), read 2026-11-27. NV:
`contact_email` and `payment_details`, which it does not have, and `destination` of a fulfillment."""


class ShopifyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app on one shop."""

    shop: str
    """The shop's permanent name, such as `acme.myshopify.com`: webhooks of another shop are refused."""
    client_id: str = ""
    """The app's client id, to request tokens of 24 hours each, as apps of the Dev Dashboard do."""
    client_secret: tuple[Secret, ...] = ()
    """The app's client secret, which signs webhooks; two, the newer first, for an hour after it was rotated."""
    access_token: Secret | None = None
    """A permanent Admin API token instead of the client id. Either needs the scope of each resource (`read_orders`)."""
    api_version: str = "2026-10"
    """Version of the Admin API for lists."""
    resources: tuple[Literal["orders", "products", "customers"], ...] = ("orders", "products", "customers")
    """The listed resources. Subscribe to the update topic of each, because the list shows every change."""
    read_all_orders: bool = False
    """True if the app has the scope of that name; else only orders of the last 60 days are listed."""
    subscriptions_in_app_config: bool = False
    """True if the subscriptions are in shopify.app.toml: Shopify does not list those, so their state is unknown."""
    page_limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE
    """Objects requested per page."""
    api_base: str = ""
    """The address of the API; empty: the shop. Another value only for a fake."""


class Shopify:
    """Shopify, for one app on one shop."""

    kind: ClassVar[str] = "shopify"
    Options: ClassVar[type[ShopifyOptions]] = ShopifyOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.RESOURCE_STATE,
        basis=Basis.VENDOR_SDK,
        order=Order.OLDEST_FIRST,
        resolution=timedelta(seconds=1),
        history=webhook.ORDERS_SHOWN,
        grace=timedelta(minutes=2),  # NV: the time until search finds an update
        rendering=Rendering.PUSHED,
        identity_unsigned=True,  # the signature covers the body; topic and id are headers
        signature_headers=(webhook.HMAC,),
        carried_headers=webhook.CARRIED,
        optional_headers=webhook.OPTIONAL,
        requests_per_second=2,  # of 100 points a second on the smallest plan; a full page costs up to about 250
        grant=Grant(
            requests=24,
            period=timedelta(minutes=1),
            source="shopify.dev, GraphQL Admin API rate limits: 100 points a second on the smallest plan, to 2,000 on "
            "the largest; NV: that a full page costs 250. What each answer says of the points is believed",
            read_on=date(2026, 11, 27),
        ),
        streams_share_endpoint=True,
        personal_data=PERSONAL_DATA,
        unproven=(
            "The list shows each object as it is now: steps between two readings, changes within one second and "
            "deletions leave no trace; there is no list of refunds, which show as a change of their order. Without "
            "read_all_orders, older orders are not listed. Not verified: that every change of updatedAt is pushed, "
            "how soon the search shows it, and that it lists orders of every status."
        ),
    )

    def __init__(self, options: ShopifyOptions) -> None:
        self.options = options
        self._keys = SigningKeys(options.client_secret)
        base = options.api_base.rstrip("/") or f"https://{options.shop}"
        url = f"{base}/admin/api/{options.api_version}/graphql.json"
        self._api = graphql.ShopifyApi(url, options.page_limit, options.resources, options.read_all_orders)
        secret = next(iter(options.client_secret), Secret(""))
        token_url = f"{base}/admin/oauth/access_token"
        self._auth = graphql.TokenAuth(options.access_token, token_url, options.client_id, secret)
        if options.read_all_orders or "orders" not in options.resources:
            self.capabilities = replace(Shopify.capabilities, history=None)

    def auth(self) -> httpx.Auth:
        return self._auth

    def budget_scope(self) -> str:
        """`shopify:` and the shop. Shopify counts per app and shop; no budget of requests is known."""
        return f"shopify:{self.options.shop}"

    def option_problems(self) -> list[str]:
        options, problems = self.options, []
        if not _SHOP_FORM.fullmatch(options.shop):
            problems.append(f'shop is "{options.shop}"; wanted the permanent name, such as acme.myshopify.com')
        if not _VERSION_FORM.fullmatch(options.api_version):
            problems.append(f'api_version is "{options.api_version}"; wanted one such as 2026-10')
        if bool(options.client_id and options.client_secret) == bool(options.access_token):
            problems.append("give either client_id with client_secret, or access_token, for reading")
        if len(set(options.resources)) < len(options.resources):
            problems.append("resources names one twice; name each once")
        if options.read_all_orders and "orders" not in options.resources:
            problems.append("read_all_orders is set and resources has no orders; drop one of the two")
        return problems

    def account_request(self) -> httpx.Request:
        return self._api.post(listing.SHOP)

    def read_account(self, response: httpx.Response) -> Account:
        """Return the shop's gid; there is no test mode."""
        return Account(fingerprint=listing.read_shop(response))

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        webhook.verify(request, self._keys)
        return Reply(events=(webhook.read(self._api, self.options.shop, request, now),))

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified webhook claims."""
        key = request.header(webhook.WEBHOOK_ID)
        return (key,) if key else ()

    def render(
        self,
        event: RecordedEvent,
        target_url: str,  # noqa: ARG002
        secret: Secret,
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        return webhook.render(event, secret, self.options.shop, self.options.api_version)

    def streams_request(self) -> httpx.Request:
        """Request the app's scopes: the options name the streams, the scopes limit what they show."""
        return self._api.post(listing.SCOPES)

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:  # noqa: ARG002
        return listing.read_streams(self._api, response)

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        return listing.first_request(self._api, stream, window)

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        return listing.read_page(self._api, request, response, stream, window)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        graphql.judge(response, now)

    def read_quota(self, response: httpx.Response, now: datetime) -> Quota | None:
        """Return the points that are left, as queries of the cost of this one."""
        return graphql.read_quota(response, now)

    def subscription_request(self) -> httpx.Request:
        """Request the app's webhook subscriptions on this shop; more than one page of them is `UnexpectedShape`."""
        return self._api.post(subscription.SUBSCRIPTIONS)

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        if self.options.subscriptions_in_app_config:
            path, got = "data.webhookSubscriptions", "silent about subscriptions of shopify.app.toml"
            raise UnexpectedShape(path, got, "subscriptions made by API")
        return subscription.read(self._api, response, webhook_url)

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:  # noqa: ARG002
        return subscription.register_request(self._api, webhook_url, types)

    def read_registration(self, response: httpx.Response) -> Registration:
        return subscription.read_registration(response)

    def repair_request(self, subscription: Subscription, webhook_url: str) -> None:
        """Return None: a deleted subscription must be created again."""


PROVIDER = Shopify
