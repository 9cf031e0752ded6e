"""Any vendor that lists its events over HTTP, declared in TOML: no Python is written for it.

`gapless_reconcilers/declared/` has the ready-made vendors; `docs/adding-a-provider.md` explains each option. Nothing is
guessed: if a field is not where the declaration says it is, the pass stops.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

import httpx
import msgspec

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    Order,
    Page,
    Pool,
    Reading,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.decoders import decode_json, decode_or_none, peek, raw_at, read_each, rows_at
from gapless_reconcilers.kit.errors import (
    HistoryExpired,
    OptionsInvalid,
    ProviderUnavailable,
    RateLimited,
    SignatureInvalid,
    UnexpectedShape,
)
from gapless_reconcilers.kit.pagination import is_walked
from gapless_reconcilers.providers.rest_list import checks, pages
from gapless_reconcilers.providers.rest_list.credentials import fingerprint
from gapless_reconcilers.providers.rest_list.options import ListOptions, RestListOptions, WebhookOptions
from gapless_reconcilers.providers.rest_list.webhooks import Webhooks


class RestList:
    """One vendor as its declaration describes it."""

    kind: ClassVar[str] = "rest_list"
    Options: ClassVar[type[RestListOptions]] = RestListOptions
    is_declared: ClassVar[bool] = True
    """True: the capabilities of the class describe no vendor; those of an instance do, once it has options."""
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.EVENT_LOG,
        basis=Basis.VENDOR_DOCS,
        rendering=Rendering.EQUIVALENT,
        signature_headers=(),
        unproven="What its declaration says: see the ready-made ones",
    )

    def __init__(self, options: RestListOptions) -> None:
        self.options = options
        self._base = options.base_url.rstrip("/")
        self._auth = options.auth.auth(self._base)
        listed = options.list
        found = [] if listed is None else list(pages.placeholders([listed.params, listed.json or {}]))
        checks.check(options, found)
        self._webhooks = None if options.webhook is None else Webhooks(options, options.webhook)
        self.capabilities = replace(
            type(self).capabilities,
            **_of_list(listed, is_filtered=bool(found)),
            **_of_webhook(options.webhook, self._webhooks),
            coverage=options.coverage,
            exact_times=options.exact_times,
            basis=options.basis,
            requests_per_second=options.rate,
            least_interval=options.least_interval,
            grant=None if options.grant is None else options.grant.grant(),
            personal_data=options.personal_data,
            met=options.met,
            unproven=options.unproven,
        )

    @property
    def _list(self) -> ListOptions:
        if self.options.list is None:
            raise OptionsInvalid("no list is declared; write [source.options.list]")
        return self.options.list

    def auth(self) -> httpx.Auth | None:
        """Return the credentials that the declaration names."""
        return self._auth

    def budget_scope(self) -> str:
        """Return a name made of the host and, unless all accounts share the grant, a fingerprint of the credentials."""
        host, grant = httpx.URL(self._base).host, self.capabilities.grant
        is_shared = grant is not None and grant.pool is Pool.ADDRESS
        return f"rest_list:{host}" if is_shared else f"rest_list:{host}:{fingerprint(self.options.auth)}"

    def option_problems(self) -> list[str]:
        """Report an unencrypted connection, and secrets that can verify nothing."""
        url, problems = httpx.URL(self._base), list[str]()
        if self.options.base_url and url.scheme == "http" and url.host not in ("127.0.0.1", "localhost", "::1"):
            problems.append("base_url is http: the credentials travel unencrypted; use https")
        if self.options.webhook is not None and self.options.webhook.signature.unusable:
            problems.append("a secret of webhook.signature can verify nothing; copy it whole from the vendor's page")
        return problems

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """Return the events of a webhook, or the answer to a handshake."""
        if self._webhooks is None:
            raise SignatureInvalid("no webhook is declared; write [source.options.webhook]", reason="no_signature")
        return self._webhooks.read(request, now)

    def preview(self, request: WebhookRequest, now: datetime) -> tuple[RemoteEvent, ...]:
        """Return the events of a webhook that nobody has verified, to be shown."""
        return () if self._webhooks is None else self._webhooks.events(request, now, verifies=False)

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the keys that an unverified webhook claims."""
        return () if self._webhooks is None else self._webhooks.claimed_keys(request)

    def carried_secrets(self) -> Mapping[str, tuple[str, ...]]:
        """Return the accepted values of the header that carries the secret, if the declared scheme has one."""
        return {} if self.options.webhook is None else self.options.webhook.signature.carried()

    def render(
        self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime
    ) -> WebhookMessage | CannotRender:
        """Return the event in the webhook's envelope, signed now with `secret`."""
        if self._webhooks is None:
            return CannotRender(reason="no webhook is declared, so nothing says what one looks like")
        return self._webhooks.render(event, target_url, secret, now)

    def first_request(self, stream: str, window: Window) -> httpx.Request:  # noqa: ARG002 - there is one stream
        """Request the first page."""
        return self._build_request(window, pages.Step())

    def other_requests(self, stream: str, window: Window) -> list[httpx.Request]:  # noqa: ARG002 - there is one stream
        """Request the first page in each of the other ways that the declaration names."""
        cuts = range(len(self._list.other_cuts))
        return [self._build_request(window, pages.Step(), other_cut=cut) for cut in cuts]

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:  # noqa: ARG002
        """Return the events of a page that are inside `window`, and the request for the next page."""
        if response.status_code in self.options.errors.ignore:
            return Page(events=[], next=None)
        listed = self._list
        if listed.nothing is not None and decode_or_none(response.content, object) == listed.nothing:
            return Page(events=[], next=None)
        rows = rows_at(response.content, listed.records)
        found = read_each(listed.records, rows, self._listed)
        first = found.events[0].key if found.events else found.unreadable[0].digest if rows else ""
        page = pages.Answered(request=request, response=response, rows=len(rows), first=first)
        step = None if self._is_beyond(found.events, window) else listed.page.next(page)
        other_cut = request.extensions.get(pages.OTHER_CUT)
        following = None if step is None else self._build_request(window, step, after=first, other_cut=other_cut)
        return found.page(window, following)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Raise the error for the declared statuses, then that of the default table."""
        status, errors = response.status_code, self.options.errors
        message = f"{statuses.describe_request(response)} was answered with {status}"
        if status in errors.ignore:
            return
        if status in errors.retry:
            raise ProviderUnavailable(message, retry_after=statuses.parse_retry_after(response, now))
        if status in errors.throttled:
            raise RateLimited(message, retry_after=statuses.parse_retry_after(response, now))
        if status in errors.expired:
            raise HistoryExpired(message)
        statuses.judge(response, now)

    def _listed(self, row: msgspec.Raw, place: str) -> RemoteEvent:
        item, text = self._list.item, row
        if item:
            text = _inside(row, item, place)
            place = f"{place}.{item}"
        return self.options.event.read(text, place, payload=self._payload(text, place))

    def _payload(self, text: msgspec.Raw, place: str) -> msgspec.Raw | bytes | None:
        """Return what a webhook has as its body; None: it is the event itself."""
        path = self._list.payload
        if not path:
            return None
        found = _inside(text, path, place)
        if not bytes(found).lstrip().startswith(b'"'):
            return found
        body: str = decode_json(found, str, f"{place}.{path}")
        if peek(body.encode(), msgspec.Raw) is None:
            raise UnexpectedShape(f"{place}.{path}", "no JSON", "the text of a webhook's body")
        return body.encode()

    def _is_beyond(self, events: list[RemoteEvent], window: Window) -> bool:
        """Return True if all later events are outside `window`: the whole page is, by the grace, and there is an order.

        For a single page its last row is enough. Raises `UnexpectedShape` if the page runs against the order.
        """
        listed = self._list
        if not events or listed.order is Order.UNORDERED:
            return False
        first, last = events[0].occurred_at, events[-1].occurred_at
        ends = events[-1:] if isinstance(listed.page, pages.SinglePage) else events
        times = [event.occurred_at for event in ends]
        if listed.order is Order.NEWEST_FIRST:
            is_beyond, is_against = is_walked(times, window, listed.grace), first + listed.grace < last
        else:
            is_beyond, is_against = min(times) >= window.end + listed.grace, last + listed.grace < first
        if is_beyond and is_against:
            raise UnexpectedShape(listed.records, "not in the order of list.order", f"rows {listed.order}")
        return is_beyond

    def _build_request(
        self, window: Window, step: pages.Step, after: str = "", other_cut: int | None = None
    ) -> httpx.Request:
        """Return the list's request with the parameters of `step`, or the request for the address that it names."""
        listed = self._list
        headers = httpx.Headers({"accept": "application/json"})
        headers.update(listed.headers)
        extensions: dict[str, Any] = {pages.FIRST: after} if after else {}
        different: Mapping[str, Any] = {}
        if other_cut is not None:
            extensions[pages.OTHER_CUT], different = other_cut, listed.other_cuts[other_cut]
        if step.url is not None:
            return httpx.Request("GET", step.url, headers=headers, extensions=extensions)
        url, params = self._base + listed.path, pages.fill(listed.params, window, listed.resolution)
        if listed.json is None:
            params = pages.merged({**params, **different}, step)
            return httpx.Request("GET", url, params=params, headers=headers, extensions=extensions)
        body = pages.merged({**pages.fill(listed.json, window, listed.resolution), **different}, step)
        return httpx.Request("POST", url, params=params, json=body, headers=headers, extensions=extensions)


def _inside(text: msgspec.Raw, path: str, place: str) -> msgspec.Raw:
    """Return what stands at `path` in `text`, found at `place`. Raises `UnexpectedShape`."""
    try:
        return raw_at(text, path)
    except UnexpectedShape as error:
        raise error.inside(place) from error


def _of_list(listed: ListOptions | None, *, is_filtered: bool) -> dict[str, Any]:
    """Return the capabilities that the list decides; without one nothing comes back."""
    if listed is None:
        return {"remedy": Remedy.NONE}
    return {
        "reading": Reading.WINDOW if is_filtered else Reading.WALK,
        "order": listed.order,
        "resolution": listed.resolution,
        "history": listed.history,
        "grace": listed.grace,
    }


def _of_webhook(webhook: WebhookOptions | None, webhooks: Webhooks | None) -> dict[str, Any]:
    """Return the capabilities that the webhook decides."""
    if webhook is None or webhooks is None:
        return {}
    signature = webhook.signature
    return {
        "rendering": webhooks.rendering,
        "signs_body": signature.signs_body,
        "identity_unsigned": webhooks.identity_unsigned,
        "signature_headers": signature.headers,
        "twin_headers": signature.twins,
        "carried_headers": webhooks.carried,
        "optional_headers": webhooks.optional,
        "methods": webhooks.methods,
        "refusal_statuses": webhook.refusals,
        "offers_secret": webhook.handshake is not None and bool(webhook.handshake.offers),
    }


PROVIDER = RestList
