"""What a sample webhook and a sample page become with a declaration, and what is missing. Without a request."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx

from gapless.cli.output import Finding, ok, problem, warning
from gapless.errors import UserError
from gapless.text import format_time
from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    OWN_STREAM,
    Coverage,
    ListsEvents,
    NeedsEvidence,
    PreviewsWebhooks,
    Provider,
    RemoteEvent,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.errors import ProviderError, UnexpectedShape, WebhookRefused

MOST_SHOWN: Final = 20
STALE: Final = "stale"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE: Final = re.compile(r"(?P<method>[A-Z]+) (?P<target>\S+)(?: HTTP/[\d.]+)?")


def read_http(content: bytes) -> WebhookRequest:
    """Return the request in `content`: a request line if there is one, headers, an empty line, the body as it was sent.

    Raises `UserError`.
    """
    end = min((at for mark in (b"\r\n\r\n", b"\n\n") if (at := content.find(mark)) >= 0), default=len(content))
    head, body = content[:end], content[end:]
    body = body.removeprefix(b"\r\n\r\n") if body.startswith(b"\r\n\r\n") else body.removeprefix(b"\n\n")
    lines = head.decode("latin-1").splitlines()
    method, query = "POST", ""
    if lines and (first := _REQUEST_LINE.fullmatch(lines[0].strip())):
        method, query, lines = first["method"], urlsplit(first["target"]).query, lines[1:]
    headers = []
    for number, line in enumerate(lines, start=1):
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name.strip()):
            raise UserError(
                f"line {number} of the headers is {line[:60]!r}; wanted Name: value, then an empty line, then the body"
            )
        headers.append((name.strip().lower().encode("latin-1"), value.strip().encode("latin-1")))
    return WebhookRequest(headers=tuple(headers), body=body, method=method, query=query.encode())


def of_webhook(provider: Provider, request: WebhookRequest, now: datetime, unset: Sequence[str]) -> Iterator[Finding]:
    """Yield what the sample webhook becomes, and why it would be refused."""
    yield _signature(provider, request, now, unset)
    if request.method != "POST" or not isinstance(provider, PreviewsWebhooks):
        return
    try:
        events = provider.preview(request, now)
    except WebhookRefused as refused:
        yield problem("webhook", refused.detail)
        return
    if not events:
        yield warning("webhook", "it carries no event: nothing would be recorded")
    for event in events[:MOST_SHOWN]:
        yield ok("webhook", describe(event))


def events_of(provider: Provider, request: WebhookRequest, now: datetime) -> tuple[RemoteEvent, ...]:
    """Return the events of the sample; none if it cannot be read."""
    try:
        return provider.preview(request, now) if isinstance(provider, PreviewsWebhooks) else ()
    except WebhookRefused:
        return ()


def _signature(provider: Provider, request: WebhookRequest, now: datetime, unset: Sequence[str]) -> Finding:
    try:
        reply = provider.read_webhook(request, now)
    except WebhookRefused as refused:
        return _refused(refused, unset)
    except Exception as error:  # noqa: BLE001 - it is what a webhook would meet
        return problem("signature", f"the provider has a bug: {error!r}")
    if isinstance(reply, NeedsEvidence):
        return warning("signature", f"it needs what {reply.request.url.host} answers; nothing is asked here")
    if not reply.events:
        said = reply.answer.body.decode(errors="replace")
        return ok("signature", f"it is taken and records nothing; the answer is {reply.answer.status} {said!r}")
    return ok("signature", "it fits")


def _refused(refused: WebhookRefused, unset: Sequence[str]) -> Finding:
    if refused.reason == STALE:
        return ok("signature", "it fits; the sample is too old to be taken now, as it should be")
    if unset and refused.reason == "signature":
        return warning("signature", f"it is not checked: set {', '.join(unset)} to the secret of the sample")
    return problem("signature", f"{refused.detail} ({HTTPStatus(refused.status).value})")


def of_page(provider: Provider, content: bytes) -> Iterator[Finding | RemoteEvent]:
    """Yield what the sample page becomes: a finding for it and for each odd row, and its events."""
    if not isinstance(provider, ListsEvents) or provider.capabilities.coverage is Coverage.NONE:
        yield problem("page", "there is no list that could read it; declare [source.options.list]")
        return
    everything = Window(start=EARLIEST, end=LATEST)
    try:
        request = provider.first_request(OWN_STREAM, everything)
        page = provider.read_page(request, _response(content, request), OWN_STREAM, everything)
    except UnexpectedShape as error:
        yield problem("page", str(error))
        return
    except ProviderError as error:
        yield problem("page", f"{type(error).__name__}: {error}")
        return
    following = "the list ends here" if page.next is None else f"the next page is {page.next.method} {page.next.url}"
    yield ok("page", f"{len(page.events)} events; {following}")
    for row in page.unreadable[:MOST_SHOWN]:
        yield problem("page", f"a row is no event: {row.problem}")
    yield from page.events


def _response(content: bytes, request: httpx.Request) -> httpx.Response:
    """Return the sample as the vendor's answer: its body, or the whole answer if it begins with `HTTP/`."""
    if not content.startswith(b"HTTP/"):
        return httpx.Response(200, content=content, request=request)
    whole = read_http(content.partition(b"\n")[2])
    return httpx.Response(200, content=whole.body, headers=list(whole.headers), request=request)


def compared(pushed: Sequence[RemoteEvent], listed: Sequence[RemoteEvent], *, exact_times: bool) -> Iterator[Finding]:
    """Yield whether the webhook's events are those of the page: an event has one identity on both ways."""
    by_key = {event.key: event for event in listed}
    for event in pushed:
        twin = by_key.get(event.key)
        if twin is None:
            keys = ", ".join(list(by_key)[:3])
            yield warning("identity", f"{event.key} of the webhook is not in the page, which has {keys or 'none'}")
            continue
        names = ["type", "object_key"] + (["occurred_at"] if exact_times else [])
        wrong = [name for name in names if getattr(event, name) != getattr(twin, name)]
        for name in wrong:
            of_both = f"{getattr(event, name)} in the webhook, {getattr(twin, name)} in the page"
            yield problem("identity", f"{event.key} has another {name} on each way: {of_both}")
        if not wrong:
            yield ok("identity", f"{event.key} is the same in webhook and page")


def describe(event: RemoteEvent) -> str:
    """Return an event in words."""
    parts = [f"key {event.key}", f"type {event.type}", f"occurred {format_time(event.occurred_at)}"]
    parts += [f"object {event.object_key}"] if event.object_key else []
    return ", ".join(parts)
