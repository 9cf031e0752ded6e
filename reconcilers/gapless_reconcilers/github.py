"""GitHub: the webhook of a repository, an organisation or an App, and the log of its deliveries.

Sources, read November 2026: @octokit/openapi 23.0.2, @octokit/webhooks-methods 6.0.0, GitHub's pages on validating
deliveries, handling failed deliveries, redelivering, and REST rate limits. NV: not verified.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.auth import AppAuth, BearerAuth
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Basis,
    Capabilities,
    Coverage,
    Evidence,
    MissingEvent,
    Order,
    Page,
    ReadBudget,
    Reading,
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
from gapless_reconcilers.kit.errors import MalformedWebhook, RateLimited, SignatureInvalid, UnexpectedShape
from gapless_reconcilers.kit.paging import next_link
from gapless_reconcilers.kit.signing import SigningKeys, hmac_sha256_hex, is_signed_by_any

SIGNATURE_HEADER: Final = "x-hub-signature-256"
EVENT_HEADER, DELIVERY_HEADER, HOOK_HEADER = "x-github-event", "x-github-delivery", "x-github-hook-id"
OF_APP: Final = "app"
"""Stands in keys for the one hook of an App, whose list does not name it."""
SECONDARY: Final = timedelta(seconds=60)
"""Least wait after the secondary limit, where no time is named (REST rate limits page)."""
MOST_PER_PAGE: Final = 100
VERSION: Final = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


class GitHubOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One hook: of `repository` or `organization` with its `hook_id`, or that of an App."""

    webhook_secret: tuple[Secret, ...] = ()
    """The hook's secret; while it is changed, the old one too. Required: a webhook without a signature is refused."""
    token: Secret | None = None
    """May read webhooks of the repository or organisation; to ask for redelivery or to repair, write them."""
    app_private_key: Secret | None = None
    """PEM. Makes this the source of the App `app_id`: all its installations."""
    app_id: str | None = None
    repository: str | None = None
    """`owner/name`."""
    organization: str | None = None
    hook_id: Annotated[int, msgspec.Meta(gt=0)] | None = None
    remedy: Literal["detail", "redelivery"] = "detail"
    """How what was lost comes back: one request shows its payload, or GitHub is asked to send it again, signed."""
    history: timedelta = timedelta(days=3)
    """How far back the log reaches. GitHub Enterprise Server: 7 days."""
    page_limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE
    api_base: str = "https://api.github.com"
    """GitHub Enterprise Server: `https://HOST/api/v3`."""


class _Action(msgspec.Struct, gc=False):
    action: Any = None


class _Delivery(msgspec.Struct, gc=False, kw_only=True):
    """One attempt, as the log shows it."""

    id: int
    guid: str
    delivered_at: Annotated[datetime, msgspec.Meta(tz=True)]
    event: str
    action: str | None = None


class _Sent(msgspec.Struct, gc=False):
    payload: msgspec.Raw


class _Detail(_Delivery, gc=False, kw_only=True):
    request: _Sent


class _Config(msgspec.Struct, gc=False):
    url: str = ""


class _Hook(msgspec.Struct, gc=False):
    id: int
    active: bool
    events: tuple[str, ...]
    config: _Config


class _Message(msgspec.Struct, gc=False):
    message: str = ""


class GitHub:
    """GitHub, bound to one hook. Deliveries to other hooks share their GUID, so a key names the hook as well."""

    kind: ClassVar[str] = "github"
    Options: ClassVar[type[GitHubOptions]] = GitHubOptions
    capabilities = Capabilities(
        coverage=Coverage.DELIVERY_LOG,
        basis=Basis.VENDOR_SDK,
        reading=Reading.WALK,
        order=Order.NEWEST_FIRST,  # relied on by GitHub's own redelivery script; its reference does not promise it
        history=timedelta(days=3),
        grace=timedelta(minutes=5),  # "can take minutes" (troubleshooting page); NV
        exact_times=False,
        precondition="the hook exists and is active",
        remedy=Remedy.DETAIL,
        rendering=Rendering.EQUIVALENT,
        signature_headers=(SIGNATURE_HEADER,),
        carried_headers=(EVENT_HEADER, DELIVERY_HEADER, HOOK_HEADER),
        requests_per_second=5,
        budget=ReadBudget(requests=5000, period=timedelta(hours=1)),
        unproven=(
            "Nothing is listed of a time in which the hook was inactive or absent, nor of what GitHub never sends: "
            "payloads over 25 MB, pushes of more than three tags. Not verified: the order of the log, and how late it "
            "shows a delivery. Marketplace, Sponsors and enterprise-wide hooks have no log."
        ),
    )

    def __init__(self, options: GitHubOptions) -> None:
        self.options = options
        self.capabilities = replace(type(self).capabilities, history=options.history, remedy=Remedy(options.remedy))
        self._keys = SigningKeys(options.webhook_secret)
        self._hook = OF_APP if options.app_private_key is not None else str(options.hook_id)
        self._base = options.api_base.rstrip("/")

    def auth(self) -> httpx.Auth | None:
        """The token, or what an App shows instead."""
        if self.options.app_private_key is not None:
            return AppAuth(self.options.app_id or "", self.options.app_private_key)
        return None if self.options.token is None else BearerAuth(self.options.token)

    def budget_scope(self) -> str:
        """GitHub counts per user or installation; the hook stands for it."""
        return f"github:{self.options.app_id or self.options.repository or self.options.organization}"

    def option_problems(self) -> list[str]:
        """Whether the options name one hook, and a way to ask for it."""
        named = [self.options.repository, self.options.organization, self.options.app_private_key]
        problems = []
        if sum(each is not None for each in named) != 1:
            problems.append("name one of repository, organization and app_private_key: a source is one hook")
        if self.options.app_private_key is None and (self.options.hook_id is None or self.options.token is None):
            problems.append("hook_id and token are needed for the hook of a repository or an organisation")
        if self.options.app_private_key is not None and not self.options.app_id:
            problems.append("app_id is needed beside app_private_key")
        if self.options.repository is not None and self.options.repository.count("/") != 1:
            problems.append(f"repository is {self.options.repository!r}; wanted owner/name")
        return problems

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """The one event of a delivery, JSON or form. No time is sent, so it occurred when it came."""
        self._verify(request)
        name, guid, sender = (_required(request, header) for header in (EVENT_HEADER, DELIVERY_HEADER, HOOK_HEADER))
        hook = OF_APP if self._hook == OF_APP else sender
        event = recordable(None, _event, hook, guid, name, _action(request.body), now, request.body)
        return Reply(events=(event if hook == self._hook else msgspec.structs.replace(event, listable=False),))

    def _verify(self, request: WebhookRequest) -> None:
        """Raise `SignatureInvalid` unless one of our secrets signed the body: never "verify if it is there"."""
        header = request.header(SIGNATURE_HEADER)
        if header is None:
            raise SignatureInvalid(f"there is no {SIGNATURE_HEADER}; has the hook a secret?", reason="no_signature")
        scheme, _, signature = header.partition("=")
        if scheme != "sha256" or not signature:
            raise SignatureInvalid("the signature is not sha256=…", reason="bad_header")
        if not is_signed_by_any(self._keys, [signature.encode("latin-1")], request.body):
            raise SignatureInvalid("the signature is that of no secret we know; check webhook_secret")

    def render(self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> WebhookMessage:  # noqa: ARG002
        """The delivery, signed anew: byte for byte if it came by webhook, else its payload as the log has it."""
        hook, _, guid = event.key.partition(":")
        is_form = event.payload.startswith(b"payload=")
        signature = hmac_sha256_hex(secret.reveal().encode(), event.payload).decode()
        headers = {
            "content-type": "application/x-www-form-urlencoded" if is_form else "application/json",
            EVENT_HEADER: event.type.partition(".")[0],
            DELIVERY_HEADER: guid,
            HOOK_HEADER: hook,
            SIGNATURE_HEADER: f"sha256={signature}",
        }
        return WebhookMessage(headers=headers, body=event.payload)

    def first_request(self, stream: str, window: Window) -> httpx.Request:  # noqa: ARG002 - there is no filter
        """The newest deliveries: the log has no filter by time."""
        return self._get("deliveries", per_page=self.options.page_limit)

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:  # noqa: ARG002
        """The attempts inside `window`, several of one event perhaps. The walk ends below the window's start."""
        rows = decode_response(response, list[msgspec.Raw])
        listed = recordable_items("", self._listed, decode_items(rows, _Delivery, ""), rows)
        is_bottom = any(event.occurred_at < window.start for event in listed)
        following = None if is_bottom else self._next(request, response)
        return Page(events=[event for event in listed if event.occurred_at in window], next=following)

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """The delivery with its payload."""
        return self._get(f"deliveries/{missing.ref}")

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        """The event with its payload as GitHub holds it, parsed: not the bytes that were sent."""
        detail = decode_response(response, _Detail)
        event = recordable("", self._listed, detail, detail.request.payload)
        if event.key != missing.key:
            raise UnexpectedShape("guid", f"of another event, {event.key[:80]!r}", missing.key)
        return event

    def redelivery_request(self, missing: MissingEvent) -> httpx.Request:
        """`POST …/attempts`: GitHub sends it again, under the same GUID."""
        return httpx.Request("POST", self._url(f"deliveries/{missing.ref}/attempts"), headers=VERSION)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """The default table, plus GitHub's limits: 403 or 429 with nothing remaining, or a secondary limit."""
        if response.status_code in (codes.FORBIDDEN, codes.TOO_MANY_REQUESTS):
            wait = _wait(response, now)
            if wait is not None:
                raise RateLimited(f"GitHub answered {response.status_code}: its limit is used up", retry_after=wait)
        statuses.judge(response, now)

    def subscription_request(self) -> httpx.Request:
        """The hook; of an App, its configuration."""
        return self._get("config" if self._hook == OF_APP else "")

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """Whether it is active and sends to us. What an App subscribes to is not told."""
        path = urlsplit(webhook_url).path
        if self._hook == OF_APP:
            url, events, active, known = decode_response(response, _Config).url, None, True, OF_APP
        else:
            hook = decode_response(response, _Hook)
            url, events, active, known = hook.config.url, hook.events, hook.active, str(hook.id)
        if not active:
            return Subscription(healthy=False, reason="the hook is not active", id=known)
        if urlsplit(url).path != path:
            return Subscription(healthy=False, reason=f"the hook sends to another path than {path}", id=known)
        return Subscription(healthy=True, reason="", id=known, types=None if events is None else _patterns(events))

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:
        """`POST …/hooks`; of an App, its configuration is changed. The secret is ours."""
        config = {"url": webhook_url, "content_type": "json", "secret": secret.reveal()}
        if self._hook == OF_APP:
            return httpx.Request("PATCH", self._url("config"), json=config, headers=VERSION)
        events = sorted({each.partition(".")[0] for each in types}) or ["*"]
        body = {"name": "web", "active": True, "events": events, "config": config}
        return httpx.Request("POST", self._url("").rpartition("/")[0], json=body, headers=VERSION)

    def read_registration(self, response: httpx.Response) -> Registration:
        """The new hook: its number goes into `hook_id`."""
        if self._hook == OF_APP:
            return Registration(id=OF_APP)
        return Registration(id=str(decode_response(response, _Hook).id))

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:  # noqa: ARG002
        """`PATCH` with `active`; the hook of an App cannot be switched off by itself."""
        if self._hook == OF_APP or subscription.id is None:
            return None
        return httpx.Request("PATCH", self._url(""), json={"active": True}, headers=VERSION)

    def _listed(self, attempt: _Delivery, payload: msgspec.Raw) -> RemoteEvent:
        at = attempt.delivered_at.astimezone(UTC)
        event = _event(self._hook, attempt.guid, attempt.event, attempt.action, at, payload)
        return msgspec.structs.replace(event, ref=str(attempt.id))

    def _next(self, request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
        """The page that `Link` names: only its cursor is taken, so that no credentials go anywhere else."""
        named = next_link(response)
        if named is None:
            return None
        cursor = httpx.URL(named).params.get("cursor")
        if not cursor or cursor == request.url.params.get("cursor"):
            raise UnexpectedShape("Link", "a next page without a cursor, or with this page's own", "one that moves on")
        return self._get("deliveries", per_page=self.options.page_limit, cursor=cursor)

    def _get(self, path: str, **params: str | int) -> httpx.Request:
        return httpx.Request("GET", self._url(path), params=params or None, headers=VERSION)

    def _url(self, path: str) -> str:
        if self._hook == OF_APP:
            hook = "/app/hook"
        elif self.options.repository is not None:
            hook = f"/repos/{self.options.repository}/hooks/{self._hook}"
        else:
            hook = f"/orgs/{self.options.organization}/hooks/{self._hook}"
        return f"{self._base}{hook}/{path}" if path else f"{self._base}{hook}"


def _event(
    hook: str, guid: str, name: str, action: str | None, at: datetime, payload: bytes | msgspec.Raw
) -> RemoteEvent:
    """The one place where an event of either road gets its identity. Raises `ValueError`."""
    return RemoteEvent(
        key=f"{hook}:{guid}", type=f"{name}.{action}" if action else name, occurred_at=at, payload=payload
    )


def _required(request: WebhookRequest, header: str) -> str:
    value = request.header(header)
    if not value:
        raise SignatureInvalid(f"there is no {header}: GitHub always sends it", reason="no_signature")
    return value


def _action(body: bytes) -> str | None:
    """The body's `action`, of JSON or of a form with JSON in its `payload`. Raises `MalformedWebhook`."""
    content = body
    if body.startswith(b"payload="):
        try:
            content = parse_qs(body.decode("ascii"), strict_parsing=True)["payload"][0].encode()
        except (ValueError, KeyError) as error:
            raise MalformedWebhook("the form cannot be read") from error
    action = decode_webhook(content, _Action).action
    return action if isinstance(action, str) and action else None


def _patterns(events: Sequence[str]) -> tuple[str, ...]:
    """Hook events as patterns of our types: with any action, and with none."""
    if "*" in events:
        return ("*",)
    return tuple(sorted({pattern for event in (*events, "ping") for pattern in (event, f"{event}.*")}))


def _wait(response: httpx.Response, now: datetime) -> timedelta | None:
    """How long GitHub wants us to wait; None: it is no limit."""
    named = statuses.parse_retry_after(response, now)
    if named is not None:
        return named
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        wait = timedelta(seconds=min(int(reset[:12]) - now.timestamp(), statuses.LONGEST_WAIT.total_seconds()))
        return max(wait, timedelta(seconds=1))
    refusal = decode_or_none(response.content, _Message)
    return SECONDARY if refusal and "secondary rate limit" in refusal.message.lower() else None


PROVIDER = GitHub
