"""Providers that are wrong on purpose: each breaks one rule of the contract suite and keeps all others.

They show that every rule can fail. Each has a mistake that somebody made, or could easily make.
"""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
import msgspec

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    NO_EVIDENCE,
    Answer,
    Evidence,
    MissingEvent,
    NeedsEvidence,
    Page,
    Quota,
    RecordedEvent,
    RemoteEvent,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, RateLimited, UnexpectedShape
from gapless_reconcilers.providers.github import GitHub
from gapless_reconcilers.providers.rest_list import RestList
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.providers.telegram import Telegram


class KeyIsTheDelivery(Stripe):
    """Uses a proxy's request id as the key: no webhook is ever found in the list."""

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Read the key from a header, if there is one."""
        reply, delivery = super().read_webhook(request, now, evidence), request.header("x-request-id")
        events = tuple(msgspec.structs.replace(event, key=delivery or event.key) for event in reply.events)
        return msgspec.structs.replace(reply, events=events)


class StreamIsTheObject(Stripe):
    """Names another stream in the list than in the webhook."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Make a stream of each object."""
        page = super().read_page(request, response, stream, window)
        events = [msgspec.structs.replace(event, stream=event.object_key or "none") for event in page.events]
        return msgspec.structs.replace(page, events=events)


class ForgetsTheMode(Stripe):
    """Reads no mode from webhooks: test events are delivered as if they were real."""

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Leave the mode out."""
        reply = super().read_webhook(request, now, evidence)
        return Reply(events=tuple(msgspec.structs.replace(event, livemode=None) for event in reply.events))


class OnlyFirstSecret(Stripe):
    """Tries only one secret: every rotation causes a day of refusals."""

    def __init__(self, options: StripeOptions) -> None:
        super().__init__(msgspec.structs.replace(options, webhook_secret=options.webhook_secret[:1]))


class AcceptsStale(Stripe):
    """Ignores the time: a captured webhook can be sent again for ever."""

    def __init__(self, options: StripeOptions) -> None:
        super().__init__(msgspec.structs.replace(options, tolerance=timedelta(0)))


class CrashesOnGarbage(Stripe):
    """Lets the parser's error escape: anybody can cause a 500."""

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Raise `ValueError` for a body that cannot be read."""
        try:
            return super().read_webhook(request, now, evidence)
        except MalformedWebhook as error:
            raise ValueError(str(error)) from error


class LimitsTooTightly(Stripe):
    """Takes the size of an ordinary webhook for the vendor's maximum: every longer one gets 413."""

    capabilities = replace(Stripe.capabilities, body_bytes=100)


class ReadsAnyMethod(Stripe):
    """Reads events from GET too: a link in a page, or a crawler, records what it likes to repeat."""

    capabilities = replace(Stripe.capabilities, methods=("POST", "GET"))


class BlamesItself(Stripe):
    """Answers a refused webhook as if the fault were ours: a stranger decides how healthy we look."""

    capabilities = replace(Stripe.capabilities, refusal_statuses=(401, 503))


class ForgetsTheChallenge(RestList):
    """Accepts the handshake and does not repeat its challenge: the vendor never sends a webhook."""

    scenario = "rest_list/slack"

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Answer every webhook in the same way."""
        return msgspec.structs.replace(super().read_webhook(request, now, evidence), answer=Answer())


class OffersWhatAnybodySends(Stripe):
    """Takes a secret from a header of any webhook: whoever sends one chooses what an operator copies."""

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Offer what stands in the signature's header."""
        reply = super().read_webhook(request, now, evidence)
        return msgspec.structs.replace(reply, offers=Secret(request.required("stripe-signature")))


class KeepsTheSecret(RestList):
    """Keeps the whole body, in which the secret stands: who has the ledger, or a backup, can send webhooks."""

    scenario = "rest_list/graph"

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Name no other body."""
        return msgspec.structs.replace(super().read_webhook(request, now, evidence), body=None)


class FetchesFromAnywhere(Stripe):
    """Fetches its evidence from the address in a header: anybody can make us call any address."""

    def read_webhook(  # type: ignore[override]
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Request the certificate for every webhook that would be accepted."""
        reply = super().read_webhook(request, now, evidence)
        wanted = httpx.Request("GET", "https://certificates.stranger.example/1.pem")
        asked = NeedsEvidence(request=wanted, cache_key="certificate", max_age=timedelta(days=1))
        return reply if "certificate" in evidence else asked


class DetailIsAnother(Stripe):
    """Gives the detail another key: it is recorded as another event, and the missing one stays missing."""

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        """Change the key."""
        event = super().read_detail(missing, response)
        return msgspec.structs.replace(event, key=f"{event.key}:detail")


class DropsLastOfPage(Stripe):
    """Uses the last row of each page only as a cursor."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Leave one event of a full page out."""
        page = super().read_page(request, response, stream, window)
        return msgspec.structs.replace(page, events=page.events[:-1]) if page.next else page


class EncodesPayloadAnew(Stripe):
    """Parses the item and writes it again: the payload is not the vendor's, byte for byte."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Add spaces to the payload."""
        page = super().read_page(request, response, stream, window)
        return msgspec.structs.replace(page, events=[self._anew(event) for event in page.events])

    def _anew(self, event: RemoteEvent) -> RemoteEvent:
        try:
            body = json.dumps(json.loads(bytes(event.payload)), indent=3, sort_keys=True)
        except RecursionError:
            return event
        return msgspec.structs.replace(event, payload=body.encode())


class WalksInCircles(Stripe):
    """Requests the same page again when the cursor does not advance: the pass never ends."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Return the same request instead of the guard's error."""
        try:
            return super().read_page(request, response, stream, window)
        except UnexpectedShape as error:
            if error.path != "data[-1]":
                raise
            return Page(events=[], next=request)


class EndsAtFirstOldRow(GitHub):
    """Ends the walk at the first row before the window: one row out of order hides all that follow."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Ask for no further page if any row lies before the window."""
        page = super().read_page(request, response, stream, window)
        everything = super().read_page(request, response, stream, Window(start=EARLIEST, end=LATEST)).events
        is_old = any(event.occurred_at < window.start for event in everything)
        return msgspec.structs.replace(page, next=None if is_old else page.next)


class OtherCutIsTheSame(Stripe):
    """Offers the usual request as another cut: what it does not show is asked for in vain."""

    def other_requests(self, stream: str, window: Window) -> list[httpx.Request]:
        """Return the first request."""
        return [self.first_request(stream, window)]


class GrantListForgetsItsTypes(Stripe):
    """Lists all events from the second page on: each counts as a transaction, and far too much is asked."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Leave the type out of the next request."""
        page = super().read_page(request, response, stream, window)
        if page.next is None:
            return page
        params = page.next.url.params.remove("type")
        following = httpx.Request("GET", page.next.url.copy_with(params=params), headers=page.next.headers)
        return msgspec.structs.replace(page, next=following)


class ReadsQuotaOfJsonAlone(Stripe):
    """Reads what is left from the body of every response: an error page of a proxy ends the pass."""

    def read_quota(self, response: httpx.Response, now: datetime) -> Quota | None:
        """Raise `ValueError` for a body that is no JSON."""
        body = response.json()
        left = body.get("left") if isinstance(body, dict) else None
        return None if left is None else Quota(remaining=int(left), resets_at=now)


class ExclusiveStart(Stripe):
    """Requests only events after the window's start: those of that second are lost."""

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """Use `created[gt]`."""
        request = super().first_request(stream, window)
        params = request.url.params.set("created[gt]", request.url.params["created[gte]"]).remove("created[gte]")
        return httpx.Request("GET", request.url.copy_with(params=params), headers=request.headers)


class KeepsOutsideWindow(Stripe):
    """Trusts the vendor's filter: events outside the window are returned too."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Return every event of the page."""
        everything = super().read_page(request, response, stream, Window(start=EARLIEST, end=LATEST)).events
        return msgspec.structs.replace(super().read_page(request, response, stream, window), events=everything)


class IgnoresRetryAfter(Stripe):
    """Uses its own wait instead of the vendor's."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Ignore the header."""
        try:
            super().judge(response, now)
        except RateLimited as error:
            raise RateLimited(str(error), retry_after=timedelta(seconds=1)) from error


class ReadsRefusalsAsPages(Stripe):
    """Raises no error except for rate limits."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Accept a 403."""
        if response.status_code != httpx.codes.FORBIDDEN:
            statuses.judge(response, now)


class SilenceIsSuccess(Stripe):
    """Reads a page without the field of its records as an empty page."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Return an empty page."""
        try:
            return super().read_page(request, response, stream, window)
        except UnexpectedShape as error:
            if error.path != "data":
                raise
            return Page(events=[], next=None)


class StopsAtOddRow(Stripe):
    """Gives the whole page up if one row of it cannot be read: from then on nothing of the account is compared."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Raise the error of the first odd row."""
        page = super().read_page(request, response, stream, window)
        if page.unreadable:
            raise UnexpectedShape("data", page.unreadable[0].problem, "rows that can be read")
        return page


class BuildsWholeRows(Stripe):
    """Builds each row as a whole: a field that it does not need keeps it from being read."""

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Decode each event's payload."""
        page = super().read_page(request, response, stream, window)
        try:
            for event in page.events:
                msgspec.json.decode(event.payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnexpectedShape("data", str(error), "rows that can be built") from error
        return page


class PutsKeyInRequest(Stripe):
    """Adds the credentials itself: they appear in logs of requests."""

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """Set `Authorization`."""
        request = super().first_request(stream, window)
        request.headers["Authorization"] = f"Bearer {self.options.api_key.reveal()}"
        return request


class DoesItsOwnWaiting(Stripe):
    """Has a coroutine, and so does the engine's work."""

    async def back_off(self) -> None:
        """Wait."""


class SignsAtOccurrence(Stripe):
    """Signs with the time of the event, not of the attempt: every replay is too old on arrival."""

    def render(self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime) -> WebhookMessage:  # noqa: ARG002
        """Sign with the time of occurrence."""
        return super().render(event, target_url, secret, event.occurred_at)


class DropsHeaders(Stripe):
    """Renders without a header that the webhook had: a consumer that reads it is given another webhook."""

    capabilities = replace(Stripe.capabilities, optional_headers=("stripe-account",))


class ForgetsWhatItRead(Telegram):
    """Requests the same events again: the vendor returns them for ever, and none after them."""

    def batch_request(self, cursor: str | None, wait: timedelta) -> httpx.Request:  # noqa: ARG002
        """Leave the cursor out."""
        return super().batch_request(None, wait)


BROKEN: dict[type[Stripe | GitHub | Telegram | RestList], str] = {
    KeyIsTheDelivery: "same_identity",
    StreamIsTheObject: "same_stream",
    ForgetsTheMode: "modes_are_named",
    OnlyFirstSecret: "any_live_secret",
    AcceptsStale: "forgery_is_refused",
    CrashesOnGarbage: "garbage_is_refused",
    LimitsTooTightly: "fits_limit",
    ReadsAnyMethod: "methods_carry_no_events",
    BlamesItself: "refusals_are_the_vendors",
    ForgetsTheChallenge: "handshakes_are_answered",
    OffersWhatAnybodySends: "secrets_are_offered_in_handshakes",
    KeepsTheSecret: "carried_secrets_are_not_kept",
    FetchesFromAnywhere: "evidence_is_allowed",
    DetailIsAnother: "detail_gives_event",
    ForgetsWhatItRead: "batches_are_acknowledged",
    DropsLastOfPage: "pages_give_expected",
    EncodesPayloadAnew: "pages_give_expected",
    WalksInCircles: "walk_ends",
    EndsAtFirstOldRow: "walk_passes_old_rows",
    OtherCutIsTheSame: "other_cuts_differ",
    GrantListForgetsItsTypes: "grant_is_listed",
    ReadsQuotaOfJsonAlone: "quota_is_read_from_anything",
    ExclusiveStart: "window_is_kept",
    KeepsOutsideWindow: "window_is_kept",
    IgnoresRetryAfter: "statuses",
    ReadsRefusalsAsPages: "statuses",
    SilenceIsSuccess: "shape_is_never_guessed",
    StopsAtOddRow: "odd_row_is_set_aside",
    BuildsWholeRows: "odd_field_is_unread",
    PutsKeyInRequest: "secrets_are_hidden",
    DoesItsOwnWaiting: "is_pure",
    SignsAtOccurrence: "rendering_is_accepted",
    DropsHeaders: "headers_are_rendered",
}
"""Each broken provider and the one rule that it breaks; `scenario` names its fixtures if they are not its kind's."""
