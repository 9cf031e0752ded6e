"""Stripe: v1 snapshot events, signed webhooks, `GET /v1/events`, Connect accounts as streams.

Sources, read autumn 2026: stripe-python 16.1.0 (`_webhook.py`, `_event.py`, `params/_event_list_params.py`),
stripe/openapi, Stripe's pages on webhooks, undelivered events, rate limits and types. NV: not verified.
"""

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import quote

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.auth import BearerAuth
from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    NO_EVIDENCE,
    OWN_STREAM,
    Account,
    Basis,
    Capabilities,
    Coverage,
    Evidence,
    MissingEvent,
    Order,
    Page,
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
from gapless_reconcilers.kit.decoding import decode_items, decode_json, decode_or_none, decode_response, decode_webhook
from gapless_reconcilers.kit.errors import (
    HistoryExpired,
    MalformedWebhook,
    OptionsInvalid,
    ProviderUnavailable,
    RateLimited,
    SignatureInvalid,
    UnexpectedShape,
)
from gapless_reconcilers.kit.paging import cursor_after
from gapless_reconcilers.kit.signing import SigningKeys, hmac_sha256_hex, is_signed_by_any, parse_timed_signatures
from gapless_reconcilers.stripe import endpoints, thin

SIGNATURE_HEADER: Final = "stripe-signature"
THROTTLED: Final = timedelta(seconds=2)
"""Wait after a 429: Stripe documents no `Retry-After` (Rate limits page), and its limits are per second."""
MOST_PER_PAGE: Final = 100

_MODES: Final = {True: "live", False: "test"}
_KEY_MODES: Final = {"sk_test_": False, "rk_test_": False, "sk_live_": True, "rk_live_": True}


class StripeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Stripe account in one mode. A key that may read events, and perhaps webhook endpoints, is enough."""

    api_key: Secret
    """A restricted (`rk_`) or secret (`sk_`) key of the same mode as `livemode`."""
    webhook_secret: tuple[Secret, ...] = ()
    """`whsec_…`, one or, while it is rolled, several. None: no webhook is accepted (audit, `mode = "poll"`)."""
    livemode: bool = True
    """Which of the account's two modes this source is; the other mode's webhooks are recorded, never expected."""
    connect: bool = False
    """Also list each connected account, as a stream of its own."""
    api_version: str | None = None
    """The API version that our webhook endpoint was made with; None: unknown."""
    tolerance: timedelta = timedelta(seconds=300)
    """How old a signature may be; 0 switches the check off. Default: the official SDK's."""
    page_limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE
    """Events asked for per page."""
    api_base: str = "https://api.stripe.com"
    """Where the API answers; another value only for a fake."""


class _Object(msgspec.Struct, gc=False):
    id: Any = None


class _Data(msgspec.Struct, gc=False):
    object: _Object


class _Event(msgspec.Struct, gc=False):
    """The few fields of an event that are read; the rest is skipped, not built."""

    id: str
    type: str
    created: Annotated[int, msgspec.Meta(ge=int(EARLIEST.timestamp()), lt=int(LATEST.timestamp()))]
    livemode: bool
    data: _Data
    account: str | None = None


class _Label(msgspec.Struct, gc=False):
    object: Any = None
    api_version: str | None = None


class _Rows(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    has_more: bool


class _Identified(msgspec.Struct, gc=False):
    id: str


class _Failure(msgspec.Struct, gc=False):
    code: str | None = None
    param: str | None = None


class _Refusal(msgspec.Struct, gc=False):
    error: _Failure


class Stripe:
    """Stripe, bound to one account and mode.

    Signatures are judged exactly as `stripe.WebhookSignature.verify_header` judges them: too old is
    refused, a time ahead of ours is not (only the holder of the secret could have signed it).
    """

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
        signature_headers=(SIGNATURE_HEADER,),
        requests_per_second=20,  # of 25 that one endpoint is granted by default (Rate limits page)
        budget=ReadBudget(requests=10_000, period=timedelta(days=30)),  # the least granted (Read allocation)
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
        self._base = options.api_base.rstrip("/")

    def auth(self) -> httpx.Auth:
        """The read key as a bearer token."""
        return BearerAuth(self.options.api_key)

    def budget_scope(self) -> str:
        """`stripe:` and 64 bits of the key's SHA-256.

        Stripe counts per account, which the key stands for before anything was asked. The key has far
        more entropy than can be searched, so nothing of it can be had from the digest. Two keys of one
        account count apart, and a rolled key starts anew: give a source one key.
        """
        return f"stripe:{hashlib.sha256(self.options.api_key.reveal().encode()).hexdigest()[:16]}"

    def option_problems(self) -> list[str]:
        """What is wrong or doubtful in the options by themselves."""
        problems = []
        of_key = self._key_mode
        if of_key is None:
            problems.append("api_key has none of the beginnings sk_live_, rk_live_, sk_test_, rk_test_; check it")
        elif of_key is not self.options.livemode:
            problems.append(
                f"api_key is a {_MODES[of_key]} key and livemode is {str(self.options.livemode).lower()}; "
                f"use a {_MODES[self.options.livemode]} key or set livemode = {str(of_key).lower()}"
            )
        problems += [
            "webhook_secret does not begin with whsec_; copy it from the endpoint's page"
            for secret in self.options.webhook_secret
            if not secret.reveal().startswith("whsec_")
        ]
        return problems

    def account_request(self) -> httpx.Request:
        """`GET /v1/account`."""
        return self._get("/v1/account")

    def read_account(self, response: httpx.Response) -> Account:
        """The account id; the mode is the key's, for the account does not name one."""
        return Account(fingerprint=decode_response(response, _Identified).id, livemode=self._key_mode)

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """The one event of a snapshot webhook, or of a thin one. Raises `WebhookRefused`."""
        header = request.header(SIGNATURE_HEADER)
        if header is None:
            raise SignatureInvalid("there is no Stripe-Signature header", reason="no_signature")
        self._verify(header, request.body, now)
        try:
            snapshot = decode_webhook(request.body, _Event)
            return Reply(events=(self._remote(snapshot, request.body, snapshot.account or OWN_STREAM),))
        except MalformedWebhook:
            event = self._read_thin(request.body)
            if event is None:
                raise
            return Reply(events=(event,))
        except ValueError as error:
            raise MalformedWebhook(f"the event cannot be recorded: {error}") from error

    def _read_thin(self, body: bytes) -> RemoteEvent | None:
        """The event of a thin webhook; None if it is none."""
        try:
            return thin.read(body, livemode=self.options.livemode, connect=self.options.connect)
        except ValueError as error:
            raise MalformedWebhook(f"the event cannot be recorded: {error}") from error

    def _verify(self, header: str, body: bytes, now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of our secrets explains one `v1` of `header`, not too old."""
        sent_at, signatures = parse_timed_signatures(header, time="t", scheme="v1")
        if not is_signed_by_any(self._keys, signatures, b"%d.%b" % (sent_at, body)):
            raise SignatureInvalid("no v1 signature is that of a secret we know; check webhook_secret")
        tolerance = self.options.tolerance.total_seconds()
        if tolerance and sent_at < now.timestamp() - tolerance:
            raise SignatureInvalid(f"the signature is older than {tolerance:g} s; check the clock", reason="stale")

    def render(self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> WebhookMessage:  # noqa: ARG002
        """The recorded event, freshly signed: byte for byte if it came by webhook.

        A listed event is rendered in the account's API version at its time, not the endpoint's, and
        names its connected account only here: the list that it came from did not have to (NV).
        """
        body = event.payload
        if event.stream and not thin.is_thin(body) and decode_webhook(body, _Event).account is None:
            body = b'{"account":%b,%b' % (msgspec.json.encode(event.stream), body.lstrip()[1:])
        sent_at = int(now.timestamp())
        signature = hmac_sha256_hex(secret.reveal().encode(), b"%d.%b" % (sent_at, body)).decode()
        headers = {"content-type": "application/json; charset=utf-8", SIGNATURE_HEADER: f"t={sent_at},v1={signature}"}
        return WebhookMessage(headers=headers, body=body)

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """`GET /v1/events` from the window's first second, inclusive, to its last, exclusive."""
        return self._events(stream, window)

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """The page's events inside `window`. Works in either order: the walk is by id, its end is `has_more`.

        Raises `OptionsInvalid` if the list is of the other mode: what it proves is not about this source.
        """
        rows = decode_response(response, _Rows)
        listed = decode_items(rows.data, _Event, "data")
        self._refuse_other_mode(listed)
        pairs = zip(listed, rows.data, strict=True)
        events = [remote for event, row in pairs if (remote := self._listed(event, row, stream)).occurred_at in window]
        cursor = cursor_after(request, listed[-1].id if listed else "", has_more=rows.has_more)
        return Page(events=events, next=self._events(stream, window, starting_after=cursor) if cursor else None)

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """`GET /v1/events/{key}`; of a thin event without a snapshot twin, `/v2/core/events/{key}`, with its data."""
        key = quote(missing.key, safe="")
        if thin.is_alone(missing.type):
            headers = {thin.CONTEXT_HEADER: missing.stream} if missing.stream else None
            return httpx.Request("GET", f"{self._base}{thin.EVENTS}/{key}", headers=headers)
        return self._get(f"/v1/events/{key}", missing.stream)

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        """The event, its payload the body as received."""
        if thin.is_alone(missing.type):
            return thin.read_detail(
                missing.key, response.content, livemode=self.options.livemode, connect=self.options.connect
            )
        return self._listed(decode_response(response, _Event), msgspec.Raw(response.content), missing.stream)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """The default table, plus what Stripe says in its own way.

        A 429 names no time to wait; 409, and whatever carries `Stripe-Should-Retry: true`, may be tried
        again (both as stripe-python's `_should_retry` has it); `resource_missing` about an event is one
        that left the 30 days, whether asked for or paged from (for paging NV).
        """
        if response.is_success:
            return
        if response.status_code == codes.TOO_MANY_REQUESTS:
            why = response.headers.get("stripe-rate-limited-reason", "lock-timeout")
            wait = statuses.parse_retry_after(response, now) or THROTTLED
            raise RateLimited(f"Stripe answered 429 ({why})", retry_after=wait)
        if _names_missing_event(response):
            raise HistoryExpired("Stripe no longer has the event that the request names; it keeps events for 30 days")
        if response.status_code == codes.CONFLICT or response.headers.get("stripe-should-retry") == "true":
            raise ProviderUnavailable(f"Stripe answered {response.status_code}, which may be tried again")
        statuses.judge(response, now)

    def streams_request(self) -> httpx.Request | None:
        """`GET /v1/accounts`, if the options say `connect`."""
        return self._get("/v1/accounts", limit=MOST_PER_PAGE) if self.options.connect else None

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:
        """The ids of the connected accounts."""
        rows = decode_response(response, _Rows)
        accounts = [account.id for account in decode_items(rows.data, _Identified, "data")]
        cursor = cursor_after(request, accounts[-1] if accounts else "", has_more=rows.has_more)
        following = self._get("/v1/accounts", limit=MOST_PER_PAGE, starting_after=cursor) if cursor else None
        return StreamPage(streams=accounts, next=following)

    def subscription_request(self) -> httpx.Request:
        """`GET /v1/webhook_endpoints`: an account has fewer than one page of them."""
        return self._get(endpoints.PATH, limit=MOST_PER_PAGE)

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """The endpoints at `webhook_url`, else those whose path is the same, read together."""
        rows = decode_response(response, _Rows)
        return endpoints.subscription(endpoints.read(rows.data), webhook_url)

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:  # noqa: ARG002
        """`POST /v1/webhook_endpoints`; Stripe chooses the secret. With `connect`, for the connected accounts."""
        made = endpoints.new(webhook_url, types, api_version=self.options.api_version, connect=self.options.connect)
        return httpx.Request("POST", self._base + endpoints.PATH, data=made)

    def read_registration(self, response: httpx.Response) -> Registration:
        """The endpoint and its secret, which Stripe shows only now."""
        return endpoints.registration(response)

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:  # noqa: ARG002
        """`POST /v1/webhook_endpoints/{id}` with `disabled=false`."""
        if subscription.id is None:
            return None
        path = f"{endpoints.PATH}/{quote(subscription.id, safe='')}"
        return httpx.Request("POST", self._base + path, data={"disabled": "false"})

    def payload_version(self, payload: bytes) -> str | None:
        """The event's `api_version`."""
        return decode_json(payload, _Label, "").api_version

    def endpoint_version(self) -> str | None:
        """The version that the options name."""
        return self.options.api_version

    def _remote(self, event: _Event, payload: bytes | msgspec.Raw, stream: str) -> RemoteEvent:
        """The one place where an event of either road gets its identity. Raises `ValueError`."""
        object_id = event.data.object.id
        return RemoteEvent(
            key=event.id,
            type=event.type,
            occurred_at=datetime.fromtimestamp(event.created, UTC),
            payload=payload,
            stream=stream,
            object_key=object_id if isinstance(object_id, str) else None,
            listable=event.livemode is self.options.livemode and (not stream or self.options.connect),
        )

    def _listed(self, event: _Event, row: msgspec.Raw, stream: str) -> RemoteEvent:
        try:
            return self._remote(event, row, stream)
        except ValueError as error:
            raise UnexpectedShape(f"event {event.id[:64]!r}", f"not recordable: {error}", "one that is") from error

    def _events(self, stream: str, window: Window, **cursor: str) -> httpx.Request:
        bounds = {"created[gte]": int(window.start.timestamp()), "created[lt]": math.ceil(window.end.timestamp())}
        return self._get("/v1/events", stream, limit=self.options.page_limit, **bounds, **cursor)

    def _get(self, path: str, stream: str = OWN_STREAM, **params: str | int) -> httpx.Request:
        headers = {"Stripe-Account": stream} if stream else None
        return httpx.Request("GET", self._base + path, params=params or None, headers=headers)

    def _refuse_other_mode(self, listed: list[_Event]) -> None:
        if any(event.livemode is not self.options.livemode for event in listed):
            wanted = _MODES[self.options.livemode]
            raise OptionsInvalid(f"the list is not of {wanted} events; use a {wanted} api_key or change livemode")


def _names_missing_event(response: httpx.Response) -> bool:
    refusal = decode_or_none(response.content, _Refusal)
    if refusal is None or refusal.error.code != "resource_missing":
        return False
    return refusal.error.param in ("starting_after", "ending_before", "id")


PROVIDER = Stripe
