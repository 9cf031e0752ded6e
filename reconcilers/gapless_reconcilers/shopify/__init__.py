"""Shopify: signed webhooks whose bodies are resources, and GraphQL lists of what each resource is now.

Sources, read November 2026: @shopify/shopify-api 13.1.0 (`webhooks/validate`, `webhooks/types`), shopify.dev on
delivery structure, verifying deliveries, webhookSubscriptions, limits, paging and search. NV: not verified.

A resource is a stream; the own stream has what no list shows, such as `app/uninstalled`. A webhook is the
delivery of one subscription, a listed item the state of one object. They meet in (object, version): the gid and
`updated_at`, shown to the second on both roads (the list: changelog of October 2026; the body: by its examples).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    OWN_STREAM,
    Account,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    Order,
    Page,
    RecordedEvent,
    Registration,
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
from gapless_reconcilers.kit.decoding import decode_items, decode_json, decode_or_none, decode_webhook
from gapless_reconcilers.kit.errors import (
    MalformedWebhook,
    OptionsInvalid,
    SignatureInvalid,
    UnexpectedShape,
)
from gapless_reconcilers.kit.signing import SigningKeys, hmac_sha256_base64, is_signed_by_any
from gapless_reconcilers.shopify import _shapes, graphql

HMAC: Final = "x-shopify-hmac-sha256"
TOPIC: Final = "x-shopify-topic"
SHOP: Final = "x-shopify-shop-domain"
WEBHOOK_ID: Final = "x-shopify-webhook-id"
TRIGGERED_AT: Final = "x-shopify-triggered-at"
MOST_PER_PAGE: Final = 250
DEPTH: Final = 25_000
"""Objects that one query can be paged through; from there on the walk begins anew at the last time it saw."""
ORDERS_SHOWN: Final = timedelta(days=60)
"""Age of the oldest orders that are shown without `read_all_orders`; by creation, as far as the words go (NV)."""
SOON_HIDDEN: Final = timedelta(days=4)
"""An order this near to that age may be gone before the last sweep looks: none is expected of it any more."""

_ID_FORM: Final = re.compile(r"[A-Za-z0-9-]{8,}")
_HOST_FORM: Final = re.compile(r"[a-z0-9.-]+")
_SHOP_FORM: Final = re.compile(r"[a-z0-9][a-z0-9-]*\.myshopify\.com")
_VERSION_FORM: Final = re.compile(r"20\d\d-(01|04|07|10)|unstable")


class ShopifyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app on one shop."""

    shop: str
    """The shop's permanent name, such as `acme.myshopify.com`: webhooks of another shop are refused."""
    client_id: str = ""
    """The app's client id. With it tokens are asked for, of 24 hours each: the way of apps of the Dev Dashboard."""
    client_secret: tuple[Secret, ...] = ()
    """The app's client secret, which signs webhooks; two, the newer first, for an hour after it was rotated."""
    access_token: Secret | None = None
    """A lasting Admin API token in place of the client id. Either needs `read_orders` and so on of each resource."""
    api_version: str = "2026-10"
    """Version of the Admin API that lists are read in."""
    resources: tuple[Literal["orders", "products", "customers"], ...] = ("orders", "products", "customers")
    """What is listed. Each needs its update topic to be subscribed: the list shows every change."""
    read_all_orders: bool = False
    """True if the app has the scope of that name; else orders of the last 60 days are all that is listed."""
    subscriptions_in_app_config: bool = False
    """True if the subscriptions stand in shopify.app.toml: Shopify does not list those, their state is unknown."""
    page_limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE
    """Objects asked for per page."""
    api_base: str = ""
    """Where the API answers; empty: at the shop. Another value only for a fake."""


class Shopify:
    """Shopify, bound to one app on one shop.

    Only the body of a webhook is signed: topic, id, shop and time are headers that nothing vouches for.
    One client secret signs for every shop that has the app, so the shop's name is compared as well.
    """

    kind: ClassVar[str] = "shopify"
    Options: ClassVar[type[ShopifyOptions]] = ShopifyOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.RESOURCE_STATE,
        basis=Basis.VENDOR_SDK,
        order=Order.OLDEST_FIRST,
        resolution=timedelta(seconds=1),
        history=ORDERS_SHOWN,
        grace=timedelta(minutes=2),  # NV: how long an update takes to be found by search
        rendering=Rendering.PUSHED,
        signature_headers=(HMAC,),
        carried_headers=(TOPIC, SHOP, WEBHOOK_ID),
        requests_per_second=2,  # of 100 points a second on the smallest plan; a full page costs up to about 250
        streams_share_endpoint=True,
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
        self._url = f"{base}/admin/api/{options.api_version}/graphql.json"
        secret = next(iter(options.client_secret), Secret(""))
        grant = graphql.Grant(f"{base}/admin/oauth/access_token", options.client_id, secret)
        self._auth = graphql.TokenAuth(options.access_token, grant)
        if options.read_all_orders or "orders" not in options.resources:
            self.capabilities = replace(Shopify.capabilities, history=None)

    def auth(self) -> httpx.Auth:
        """The token in `X-Shopify-Access-Token`."""
        return self._auth

    def budget_scope(self) -> str:
        """`shopify:` and the shop. Shopify counts per app and shop; no budget of requests is known."""
        return f"shopify:{self.options.shop}"

    def option_problems(self) -> list[str]:
        """What is wrong or doubtful in the options by themselves."""
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
        """Ask for the shop's id."""
        return self._post(graphql.SHOP)

    def read_account(self, response: httpx.Response) -> Account:
        """The shop's gid; it has no test mode."""
        return Account(fingerprint=graphql.read_data(response, "shop", _shapes.Shop).id)

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """The one event of a webhook, named by its headers. Raises `WebhookRefused`.

        That of another shop has the reason `other_account`.
        """
        signature = request.header(HMAC)
        if signature is None:
            raise SignatureInvalid("there is no X-Shopify-Hmac-Sha256 header", reason="no_signature")
        if not is_signed_by_any(self._keys, [signature.encode("latin-1")], request.body, hmac_sha256_base64):
            raise SignatureInvalid("the signature is not that of a secret we know; check client_secret")
        topic, key = graphql.named(request, TOPIC, graphql.TOPIC_FORM), graphql.named(request, WEBHOOK_ID, _ID_FORM)
        if graphql.named(request, SHOP, _HOST_FORM) != self.options.shop:
            raise MalformedWebhook("the webhook is of another shop than the option names", reason="other_account")
        sent_at = min(graphql.to_time(request.header(TRIGGERED_AT)) or now, now)
        body = decode_webhook(request.body, _shapes.Body)
        try:
            event = self._pushed(topic, body, sent_at, now)
            return Reply(events=(RemoteEvent(key=key, type=topic, payload=request.body, **event),))
        except ValueError as error:
            raise MalformedWebhook(f"the event cannot be recorded: {error}") from error

    def _pushed(self, topic: str, body: _shapes.Body, sent_at: datetime, now: datetime) -> dict[str, Any]:
        """What a webhook tells of its object.

        A body with an id and an `updated_at` is a state, and occurred then: that is the list's own time, so
        that a listing of this time must show it or a later one. A deletion is the last version of its
        object. Anything else, such as `orders/edited`, is an event of its own that no list can show.
        """
        name, _, action = topic.partition("/")
        resource = graphql.RESOURCES.get(name)
        gid = body.admin_graphql_api_id if isinstance(body.admin_graphql_api_id, str) else None
        told: dict[str, Any] = {"occurred_at": sent_at, "object_key": gid, "listable": False}
        if resource is None:
            return told
        listed = name in self.options.resources
        told["stream"] = name if listed else OWN_STREAM
        if gid is None and isinstance(body.id, int):
            gid = told["object_key"] = f"{resource.gid}{body.id}"
        updated_at = graphql.to_time(body.updated_at)
        if gid is None or not gid.startswith(resource.gid):
            return told
        if action == "delete":
            return told | {"object_version": graphql.version_of(sent_at)}
        if updated_at is None:
            return told
        shown = listed and not (name == "orders" and self._is_hidden(body, now))
        return told | {"occurred_at": updated_at, "object_version": graphql.version_of(updated_at), "listable": shown}

    def _is_hidden(self, body: _shapes.Body, now: datetime) -> bool:
        """True if the order is too old to be listed, or will be soon."""
        created_at, oldest = graphql.to_time(body.created_at), now - ORDERS_SHOWN + SOON_HIDDEN
        return not self.options.read_all_orders and created_at is not None and created_at < oldest

    def render(
        self,
        event: RecordedEvent,
        target_url: str,  # noqa: ARG002
        secret: Secret,
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """A webhook as it came, byte for byte, signed with `secret`; its `X-Shopify-Event-Id` is not kept.

        A listed state has another shape than any webhook, so that none can be made of it. A destination
        that wants Shopify's own webhooks would never get what was missed: `gapless check` says so.
        """
        if event.type in graphql.STATE_TYPES:
            return CannotRender(reason="it was listed, as GraphQL shows the object: Shopify sends no such webhook")
        headers = {
            "content-type": "application/json",
            HMAC: hmac_sha256_base64(secret.reveal().encode(), event.payload).decode(),
            TOPIC: event.type,
            SHOP: self.options.shop,
            WEBHOOK_ID: event.key,
            TRIGGERED_AT: graphql.to_text(event.occurred_at),
            "x-shopify-api-version": self.options.api_version,
        }
        return WebhookMessage(headers=headers, body=event.payload)

    def streams_request(self) -> httpx.Request:
        """Ask for the app's scopes: the streams are named by the options, what they can show by the scopes."""
        return self._post(graphql.SCOPES)

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:  # noqa: ARG002
        """The resources. Raises `OptionsInvalid` if the options promise a history that the scopes do not give.

        A resource whose scope is missing is refused when it is listed, alone.
        """
        scopes = graphql.read_data(response, "currentAppInstallation", _shapes.Installation).access_scopes
        if self.options.read_all_orders and not any(scope.handle == "read_all_orders" for scope in scopes):
            raise OptionsInvalid("read_all_orders is set and the app lacks that scope; ask for it or unset the option")
        return StreamPage(streams=list(self.options.resources), next=None)

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """The objects of the resource `stream` that were updated in the window, oldest first.

        The own stream, and one that the options no longer name, has no list: the shop's id is asked for.
        """
        if stream not in self.options.resources:
            return self._post(graphql.SHOP)
        return self._list(stream, window, since=window.start)

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """The page's states inside `window`.

        Raises `UnexpectedShape`, also if Shopify says that it has passed over a part of the filter.
        """
        if stream not in self.options.resources:
            graphql.read_data(response, "shop", _shapes.Shop)
            return Page(events=[], next=None)
        rows = graphql.read_data(response, stream, _shapes.Connection)
        path = f"data.{stream}.nodes"
        nodes = decode_items(rows.nodes, _shapes.Node, path)
        pairs = enumerate(zip(nodes, rows.nodes, strict=True))
        listed = [graphql.state_of(stream, node, row, f"{path}[{at}]") for at, (node, row) in pairs]
        following = self._following(request, stream, window, listed, rows.page_info)
        return Page(events=[state for state in listed if state.occurred_at in window], next=following)

    def _following(
        self, request: httpx.Request, stream: str, window: Window, listed: list[RemoteEvent], info: _shapes.PageInfo
    ) -> httpx.Request | None:
        """The request after `request`; where a query ends is in its address, behind the `#` that is never sent."""
        if not info.has_next_page:
            return None
        path = f"data.{stream}.pageInfo"
        if not listed or info.end_cursor is None:
            raise UnexpectedShape(path, "hasNextPage without nodes or endCursor", "both, or hasNextPage = false")
        if info.end_cursor == decode_json(request.content, _shapes.Asked, "").variables.after:
            raise UnexpectedShape(f"{path}.endCursor", "the cursor that this page was asked to follow", "one further")
        since, read = graphql.place_of(request, window)
        read += len(listed)
        if read + self.options.page_limit <= DEPTH:
            return self._list(stream, window, since=since, after=info.end_cursor, read=read)
        reached = min(state.occurred_at for state in listed).replace(microsecond=0)
        if reached <= since:
            raise UnexpectedShape(
                path, f"more than {read} objects at {graphql.to_text(since)}", f"at most {DEPTH} in a second"
            )
        return self._list(stream, window, since=reached)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """The default table, and the errors that Shopify answers with a 200.

        402 and 423 are a shop that is frozen or locked. Sources: shopify.dev, response codes and rate limits.
        """
        if response.status_code in (codes.PAYMENT_REQUIRED, codes.LOCKED):
            raise OptionsInvalid(f"Shopify answered {response.status_code}: the shop is frozen or locked")
        statuses.judge(response, now)
        refusal = decode_or_none(response.content, _shapes.Refusal)
        if refusal and refusal.errors:  # whoever reads the answer says what else is wrong with it
            graphql.refuse(refusal)

    def subscription_request(self) -> httpx.Request:
        """The app's webhook subscriptions on this shop; more than one page of them is `UnexpectedShape`."""
        return self._post(graphql.SUBSCRIPTIONS)

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """The subscriptions at `webhook_url`, else those whose path is the same, read together.

        There is no disabled state: after 8 failures in a row Shopify deletes a subscription, topic by topic.
        So each resource's update topic must be there, whole. While one is not, `types` are unknown: the
        engine goes on expecting what it did. Raises `UnexpectedShape` where Shopify cannot say.
        """
        path = "data.webhookSubscriptions"
        if self.options.subscriptions_in_app_config:
            raise UnexpectedShape(path, "silent about subscriptions of shopify.app.toml", "subscriptions made by API")
        rows = graphql.read_data(response, "webhookSubscriptions", _shapes.Connection)
        if rows.page_info.has_next_page:
            raise UnexpectedShape(f"{path}.pageInfo.hasNextPage", "true", f"at most {MOST_PER_PAGE} subscriptions")
        found = graphql.rows_at(webhook_url, decode_items(rows.nodes, _shapes.Row, f"{path}.nodes"))
        topics = {graphql.to_topic(row.topic) for row in found if graphql.is_whole(row)}
        needed = {f"{name}/{graphql.RESOURCES[name].update}" for name in self.options.resources}
        known = found[0].id if found else None
        if not found or needed - topics:
            absent = ", ".join(sorted(needed - topics)) or "any topic"
            why = f"no whole subscription at {urlsplit(webhook_url).path} for {absent}"
            hint = "Shopify may have deleted it; one of shopify.app.toml is not listed, see subscriptions_in_app_config"
            return Subscription(healthy=False, reason=f"{why}; {hint}", id=known, streams_covered=True)
        states = {f"{name}.state" for name in self.options.resources}
        version = found[0].api_version
        return Subscription(
            healthy=True,
            reason="",
            id=known,
            types=tuple(sorted(topics | states)),
            api_version=version.handle if version else None,
            streams_covered=True,
        )

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:  # noqa: ARG002
        """One mutation for each topic of `types`, in one request; empty: the usual ones of each resource.

        Shopify signs with the client secret whatever `secret` is.
        """
        usual = [topic for name in self.options.resources for topic in graphql.RESOURCES[name].topics(name)]
        wanted = dict.fromkeys(topic for pattern in types or ["*"] for topic in graphql.topics_of(pattern, usual))
        if not wanted:
            raise OptionsInvalid(f"{', '.join(types)} names no topic that can be subscribed to")
        mutations = " ".join(graphql.CREATE % (at, graphql.to_enum(topic)) for at, topic in enumerate(wanted))
        text = f"mutation($at: WebhookSubscriptionInput!) {{ {mutations} }}"
        return self._post(text, {"at": {"uri": webhook_url, "format": "JSON"}})

    def read_registration(self, response: httpx.Response) -> Registration:
        """The first subscription that was made; a topic that has one already is no error (its wording is NV)."""
        made = graphql.made_of(response)
        return Registration(id=made[0] if made else "unchanged")

    def repair_request(self, subscription: Subscription, webhook_url: str) -> None:  # noqa: ARG002
        """None: what is gone is made anew."""
        return

    def _list(
        self, stream: str, window: Window, *, since: datetime, after: str | None = None, read: int = 0
    ) -> httpx.Request:
        end = window.end if not window.end.microsecond else window.end.replace(microsecond=0) + timedelta(seconds=1)
        since = since.replace(microsecond=0)
        wanted = f"updated_at:>='{graphql.to_text(since)}' AND updated_at:<'{graphql.to_text(end)}'"
        variables = {"first": self.options.page_limit, "query": wanted} | ({"after": after} if after else {})
        is_first = not after and since == window.start.replace(microsecond=0)
        mark = "" if is_first else f"#since={graphql.to_text(since)}&read={read}"
        return self._post(graphql.LIST % (stream, graphql.RESOURCES[stream].fields), variables, mark)

    def _post(self, query: str, variables: dict[str, Any] | None = None, mark: str = "") -> httpx.Request:
        body = msgspec.json.encode({"query": query, "variables": variables or {}})
        return httpx.Request("POST", self._url + mark, content=body, headers={"Content-Type": "application/json"})


PROVIDER = Shopify
