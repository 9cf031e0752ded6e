"""GitHub for one hook: its options, its requests, and the members of the contract."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

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
    Grant,
    MissingEvent,
    Order,
    Page,
    ReadBudget,
    Reading,
    Registration,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    Subscription,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.errors import RateLimited
from gapless_reconcilers.kit.pagination import is_walked, other_size
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.github import listing, subscription, webhook
from gapless_reconcilers.providers.github.webhook import OF_APP

MOST_PER_PAGE: Final = 100
VERSION: Final = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


PERSONAL_DATA: Final = (
    "/sender", "/pusher", "/head_commit/author", "/head_commit/committer", "/commits/*/author",
    "/commits/*/committer",
)  # fmt: skip
"""NV."""


class GitHubOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One hook: of `repository` or `organization` with its `hook_id`, or that of an App."""

    webhook_secret: tuple[Secret, ...] = ()
    """The hook's secret; while it changes, the old one too. Required: a webhook without a signature is refused."""
    token: Secret | None = None
    """A token that may read webhooks of the repository or organisation; redelivery and repair need write access."""
    app_private_key: Secret | None = None
    """The private key in PEM. With it the source is the App `app_id` with all its installations."""
    app_id: str | None = None
    repository: str | None = None
    """`owner/name`."""
    organization: str | None = None
    hook_id: Annotated[int, msgspec.Meta(gt=0)] | None = None
    remedy: Literal["detail", "redelivery"] = "detail"
    """The recovery of lost events: `detail` requests the payload, `redelivery` lets GitHub send it again, signed."""
    history: timedelta = timedelta(days=3)
    """The age of the oldest deliveries in the log. GitHub Enterprise Server: 7 days."""
    page_limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE
    api_base: str = "https://api.github.com"
    """GitHub Enterprise Server: `https://HOST/api/v3`."""


class GitHub:
    """GitHub, for one hook. Deliveries of an event to several hooks share their GUID, so a key also names the hook."""

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
        identity_unsigned=True,  # the signature covers the body; the event's name and id are headers
        signature_headers=(webhook.SIGNATURE_HEADER,),
        carried_headers=(webhook.EVENT_HEADER, webhook.DELIVERY_HEADER, webhook.HOOK_HEADER),
        body_bytes=25 << 20,  # "webhook payloads are capped at 25 MB", docs: webhook events and payloads, November 2026
        requests_per_second=5,
        budget=ReadBudget(requests=5000, period=timedelta(hours=1)),
        grant=Grant(
            requests=5000,
            period=timedelta(hours=1),
            source="docs.github.com, Rate limits for the REST API: of a user; an installation has up to 12,500, one of "
            "GitHub Enterprise Cloud 15,000. What the headers of its answers say is believed",
            read_on=date(2026, 11, 27),
        ),
        personal_data=PERSONAL_DATA,
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
        owner = f"repos/{options.repository}" if options.repository is not None else f"orgs/{options.organization}"
        path = "app/hook" if self._hook == OF_APP else f"{owner}/hooks/{self._hook}"
        self._url = f"{options.api_base.rstrip('/')}/{path}"

    def auth(self) -> httpx.Auth | None:
        """Return the token, or the credentials of the App."""
        if self.options.app_private_key is not None:
            return AppAuth(self.options.app_id or "", self.options.app_private_key)
        return None if self.options.token is None else BearerAuth(self.options.token)

    def budget_scope(self) -> str:
        """Return a name with the hook: GitHub counts per user or installation, which the options do not name."""
        return f"github:{self.options.app_id or self.options.repository or self.options.organization}"

    def option_problems(self) -> list[str]:
        """Report options that do not name exactly one hook and its credentials."""
        options, problems = self.options, list[str]()
        if sum(each is not None for each in (options.repository, options.organization, options.app_private_key)) != 1:
            problems.append("name one of repository, organization and app_private_key: a source is one hook")
        if self._hook != OF_APP and (options.hook_id is None or options.token is None):
            problems.append("hook_id and token are needed for the hook of a repository or an organisation")
        if self._hook == OF_APP and not options.app_id:
            problems.append("app_id is needed beside app_private_key")
        if options.repository is not None and options.repository.count("/") != 1:
            problems.append(f"repository is {options.repository!r}; wanted owner/name")
        return problems

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        return Reply(events=(webhook.read(request, now, self._keys, self._hook),))

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified webhook claims."""
        return webhook.claimed(request, self._hook)

    render = staticmethod(webhook.render)

    def first_request(self, stream: str, window: Window) -> httpx.Request:  # noqa: ARG002 - there is no filter
        """Request the newest deliveries: the log has no filter by time."""
        return self._ask("GET", "/deliveries", params={"per_page": self.options.page_limit})

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:  # noqa: ARG002
        """Return the attempts inside `window`. The walk ends when a whole page lies before it, by the grace."""
        listed = listing.read(response, self._hook)
        is_bottom = is_walked([event.occurred_at for event in listed.events], window, self.capabilities.grace)
        cursor = None if is_bottom else listing.next_cursor(request, response)
        params = {"per_page": request.url.params.get("per_page", self.options.page_limit), "cursor": cursor}
        following = self._ask("GET", "/deliveries", params=params) if cursor else None
        return listed.page(window, following)

    def other_requests(self, stream: str, window: Window) -> list[httpx.Request]:  # noqa: ARG002 - there is no filter
        """Request the newest deliveries in pages of another size."""
        return [self._ask("GET", "/deliveries", params={"per_page": other_size(self.options.page_limit)})]

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """Request the delivery with its payload."""
        return self._ask("GET", f"/deliveries/{missing.ref}")

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        return listing.read_detail(missing, response, self._hook)

    def redelivery_request(self, missing: MissingEvent) -> httpx.Request:
        """`POST …/attempts`: GitHub sends the delivery again, with the same GUID."""
        return self._ask("POST", f"/deliveries/{missing.ref}/attempts")

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Raise the error for GitHub's limits (403 or 429 with nothing remaining, or secondary), else the default."""
        if response.status_code in (codes.FORBIDDEN, codes.TOO_MANY_REQUESTS):
            wait = listing.wait(response, now)
            if wait is not None:
                raise RateLimited(f"GitHub answered {response.status_code}: its limit is used up", retry_after=wait)
        statuses.judge(response, now)

    def subscription_request(self) -> httpx.Request:
        """Request the hook; for an App, its configuration."""
        return self._ask("GET", "/config" if self._hook == OF_APP else "")

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        return subscription.read(response, webhook_url, self._hook)

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:
        """`POST …/hooks`; for an App, change its configuration. We choose the secret."""
        if self._hook == OF_APP:
            return self._ask("PATCH", "/config", json=subscription.config(webhook_url, secret))
        made = subscription.new(webhook_url, types, secret)
        return httpx.Request("POST", self._url.rpartition("/")[0], json=made, headers=VERSION)

    def read_registration(self, response: httpx.Response) -> Registration:
        return subscription.registration(response, self._hook)

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:  # noqa: ARG002
        """`PATCH` with `active`. None for an App, whose hook cannot be switched off."""
        is_there = self._hook != OF_APP and subscription.id is not None
        return self._ask("PATCH", json={"active": True}) if is_there else None

    def _ask(self, method: str, path: str = "", **content: Any) -> httpx.Request:
        return httpx.Request(method, self._url + path, headers=VERSION, **content)


PROVIDER = GitHub
