"""Providers that are wrong on purpose: each breaks one rule of the contract suite and keeps all others.

They show that every rule can fail. Each is a mistake that somebody made, or easily could.
"""

import json
from datetime import datetime, timedelta

import httpx
import msgspec

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    NO_EVIDENCE,
    Evidence,
    MissingEvent,
    NeedsEvidence,
    Page,
    RecordedEvent,
    RemoteEvent,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, RateLimited, UnexpectedShape
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.providers.telegram import Telegram


class KeyIsTheDelivery(Stripe):
    """Takes a proxy's request id for the key: no webhook is ever found in the list."""

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Reads the key from a header, where there is one."""
        reply, delivery = super().read_webhook(request, now, evidence), request.header("x-request-id")
        events = tuple(msgspec.structs.replace(event, key=delivery or event.key) for event in reply.events)
        return msgspec.structs.replace(reply, events=events)


class StreamIsTheObject(Stripe):
    """Names another stream on the list road than on the webhook road."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Takes each object for a stream of its own."""
        page = super().read_page(request, response, stream, window)
        events = [msgspec.structs.replace(event, stream=event.object_key or "none") for event in page.events]
        return msgspec.structs.replace(page, events=events)


class OnlyFirstSecret(Stripe):
    """Tries one secret only: a day of refusals at each rotation."""

    def __init__(self, options: StripeOptions) -> None:
        super().__init__(msgspec.structs.replace(options, webhook_secret=options.webhook_secret[:1]))


class AcceptsStale(Stripe):
    """Does not look at the time: a recorded webhook can be sent again for ever."""

    def __init__(self, options: StripeOptions) -> None:
        super().__init__(msgspec.structs.replace(options, tolerance=timedelta(0)))


class CrashesOnGarbage(Stripe):
    """Lets the parser's error escape: a stranger causes a 500."""

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Raises `ValueError` for a body that cannot be read."""
        try:
            return super().read_webhook(request, now, evidence)
        except MalformedWebhook as error:
            raise ValueError(str(error)) from error


class FetchesFromAnywhere(Stripe):
    """Asks for its evidence where a header of the webhook says: a stranger makes us call any address."""

    def read_webhook(  # type: ignore[override]
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Wants the certificate first, of a webhook that would be accepted without."""
        reply = super().read_webhook(request, now, evidence)
        wanted = httpx.Request("GET", "https://certificates.stranger.example/1.pem")
        asked = NeedsEvidence(request=wanted, cache_key="certificate", max_age=timedelta(days=1))
        return reply if "certificate" in evidence else asked


class DetailIsAnother(Stripe):
    """Gives the detail a key of its own: it is recorded beside what is missing, for ever."""

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        """Marks the key."""
        event = super().read_detail(missing, response)
        return msgspec.structs.replace(event, key=f"{event.key}:detail")


class DropsLastOfPage(Stripe):
    """Takes the last row of each page for a cursor only."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Leaves one event of a full page out."""
        page = super().read_page(request, response, stream, window)
        return msgspec.structs.replace(page, events=page.events[:-1]) if page.next else page


class EncodesPayloadAnew(Stripe):
    """Parses the item and writes it again: not what the vendor said."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Puts spaces where there were none."""
        page = super().read_page(request, response, stream, window)
        return msgspec.structs.replace(page, events=[self._anew(event) for event in page.events])

    def _anew(self, event: RemoteEvent) -> RemoteEvent:
        body = json.dumps(json.loads(bytes(event.payload)), indent=3, sort_keys=True)
        return msgspec.structs.replace(event, payload=body.encode())


class WalksInCircles(Stripe):
    """Asks again for the page it has when the cursor does not move: a pass without end."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Answers the guard with the same request."""
        try:
            return super().read_page(request, response, stream, window)
        except UnexpectedShape as error:
            if error.path != "data[-1]":
                raise
            return Page(events=[], next=request)


class ExclusiveStart(Stripe):
    """Asks for what is later than the window's start: the events of that second are lost."""

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """Uses `created[gt]`."""
        request = super().first_request(stream, window)
        params = request.url.params.set("created[gt]", request.url.params["created[gte]"]).remove("created[gte]")
        return httpx.Request("GET", request.url.copy_with(params=params), headers=request.headers)


class KeepsOutsideWindow(Stripe):
    """Trusts the vendor's filter: what lies outside the window is given as if it lay inside."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Filters nothing."""
        everything = super().read_page(request, response, stream, Window(start=EARLIEST, end=LATEST)).events
        return msgspec.structs.replace(super().read_page(request, response, stream, window), events=everything)


class IgnoresRetryAfter(Stripe):
    """Names its own wait, whatever the vendor said."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Forgets the header."""
        try:
            super().judge(response, now)
        except RateLimited as error:
            raise RateLimited(str(error), retry_after=timedelta(seconds=1)) from error


class ReadsRefusalsAsPages(Stripe):
    """Judges nothing but what the default table calls a limit."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Lets 403 pass."""
        if response.status_code != httpx.codes.FORBIDDEN:
            statuses.judge(response, now)


class SilenceIsSuccess(Stripe):
    """Reads a page whose records have another name as a page without records."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Says that nothing happened."""
        try:
            return super().read_page(request, response, stream, window)
        except UnexpectedShape as error:
            if error.path != "data":
                raise
            return Page(events=[], next=None)


class PutsKeyInRequest(Stripe):
    """Adds the credentials itself: they end up in logs of requests."""

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """Sets `Authorization`."""
        request = super().first_request(stream, window)
        request.headers["Authorization"] = f"Bearer {self.options.api_key.reveal()}"
        return request


class DoesItsOwnWaiting(Stripe):
    """Has a coroutine, and so does what is the engine's to do."""

    async def back_off(self) -> None:
        """Waits, if it were to."""


class SignsAtOccurrence(Stripe):
    """Renders with the time of the event, not of the attempt: every replay is stale on arrival."""

    def render(self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> WebhookMessage:  # noqa: ARG002
        """Signs as of when the event occurred."""
        return super().render(event, target_url, secret, event.occurred_at)


class ForgetsWhatItRead(Telegram):
    """Asks for the same again: the vendor hands it out for ever, and nothing behind it."""

    def batch_request(self, cursor: str | None, wait: timedelta) -> httpx.Request:  # noqa: ARG002
        """Leaves the cursor out."""
        return super().batch_request(None, wait)


BROKEN: dict[type[Stripe | Telegram], str] = {
    KeyIsTheDelivery: "same_identity",
    StreamIsTheObject: "same_stream",
    OnlyFirstSecret: "any_live_secret",
    AcceptsStale: "forgery_is_refused",
    CrashesOnGarbage: "garbage_is_refused",
    FetchesFromAnywhere: "evidence_is_allowed",
    DetailIsAnother: "detail_gives_event",
    ForgetsWhatItRead: "batches_are_acknowledged",
    DropsLastOfPage: "pages_give_expected",
    EncodesPayloadAnew: "pages_give_expected",
    WalksInCircles: "walk_ends",
    ExclusiveStart: "window_is_kept",
    KeepsOutsideWindow: "window_is_kept",
    IgnoresRetryAfter: "statuses",
    ReadsRefusalsAsPages: "statuses",
    SilenceIsSuccess: "shape_is_never_guessed",
    PutsKeyInRequest: "secrets_are_hidden",
    DoesItsOwnWaiting: "is_pure",
    SignsAtOccurrence: "rendering_is_accepted",
}
"""Each broken provider and the one rule that it breaks."""
