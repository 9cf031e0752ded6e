"""The webhooks of a declared vendor: read into events, and rendered from them. Without I/O."""

from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from gapless_reconcilers.kit.contract import (
    Answer,
    CannotRender,
    RecordedEvent,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoders import decode_or_none, decode_webhook, peek, raw_at, rows_at
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, UnexpectedShape
from gapless_reconcilers.providers.rest_list import places
from gapless_reconcilers.providers.rest_list.handshakes import ANY
from gapless_reconcilers.providers.rest_list.options import RestListOptions, WebhookOptions
from gapless_reconcilers.providers.rest_list.places import Parts

MOST_CLAIMED: Final = 16
"""Events of one unverified webhook whose keys are read."""
MOST_FIELDS: Final = 1000
"""Fields of a form that are read."""

Found = tuple[msgspec.Raw | bytes, str]
"""The JSON of one event, and its path in the body."""


class Webhooks:
    """The webhooks of one declaration."""

    def __init__(self, options: RestListOptions, webhook: WebhookOptions) -> None:
        self._webhook = webhook
        self._fields = options.pushed
        self._is_listed = options.list is not None
        self._answer = Answer(status=webhook.status, body=webhook.answer.encode())
        named = {name: False for each in webhook.ignore for name, _ in places.headers_of(each)}
        for name, is_needed in (found for _, each in self._fields.expressions() for found in places.headers_of(each)):
            named[name] = named.get(name, False) or is_needed
        own = {*webhook.signature.headers, *webhook.signature.twins}
        self.carried = tuple(name for name, is_needed in named.items() if is_needed and name not in own)
        self.optional = tuple(name for name, is_needed in named.items() if not is_needed and name not in own)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the vendor's requests."""
        handshake = self._webhook.handshake
        return ("POST",) if handshake is None or handshake.method == "POST" else ("POST", handshake.method)

    @property
    def identity_unsigned(self) -> bool:
        """True if the key is in a header that the signature does not cover."""
        signature, first = self._webhook.signature, places.only_header(self._fields.key)
        if not signature.signs_body or first in signature.headers:
            return False  # nothing is signed, or the first alternative is, and always there
        return any(name not in signature.headers for name, _ in places.headers_of(self._fields.key))

    @property
    def rendering(self) -> Rendering:
        """How like the vendor's a rendered webhook is."""
        webhook = self._webhook
        if not webhook.signature.can_sign or webhook.signature.is_of_events:
            return Rendering.IMPOSSIBLE
        if any(self._derived(name, None) is None for name in self.carried):
            return Rendering.PUSHED
        is_whole = not (self._is_listed or webhook.many or webhook.root or webhook.form)
        return Rendering.EXACT if is_whole else Rendering.EQUIVALENT

    def read(self, request: WebhookRequest, now: datetime) -> Reply:
        """Return the events of a webhook, or the answer to a handshake. Raises `WebhookRefused`."""
        webhook, handshake = self._webhook, self._webhook.handshake
        if handshake is not None:
            parts = Parts(self._json(request.body) or b"null", request)
            if handshake.is_meant(request, parts):
                signature = webhook.signature
                answer = handshake.reply(request, parts, now, signature.verify, signature.secret)
                return Reply(events=(), answer=answer, offers=handshake.offered(parts))
        if request.method != "POST":
            raise SignatureInvalid(f"{request.method} without the challenge of a handshake", reason="no_signature")
        webhook.signature.verify(request, now)
        events = self.events(request, now)
        kept = webhook.signature.without_secrets(request.body)
        if kept == request.body:
            for event in events:
                webhook.signature.check_cut_out(event.payload)
            return Reply(events=events, answer=self._answer)
        events = self.events(msgspec.structs.replace(request, body=kept), now, verifies=False)
        for event in events:
            webhook.signature.check_cut_out(event.payload)
        return Reply(events=events, answer=self._answer, body=kept)

    def events(self, request: WebhookRequest, now: datetime, *, verifies: bool = True) -> tuple[RemoteEvent, ...]:
        """Return the events of a webhook whose signature was verified, unless each of them has its own.

        With `verifies` false, those are not verified either. Raises `WebhookRefused`.
        """
        webhook = self._webhook
        for name in self.carried:
            request.required(name)
        body = self._json(request.body)
        if body is None:
            raise MalformedWebhook("the body is no form that can be read")
        decode_webhook(body, msgspec.Raw)
        if not body.lstrip().startswith((b"{", b"[")):  # a handshake may sign a bare number for whoever asks
            raise MalformedWebhook("the body is no JSON object and no array; wanted events")
        judges = verifies and webhook.signature.is_of_events
        is_test = webhook.ignore and self._is_ignored(Parts(body, request))
        if is_test and not judges:
            return ()
        try:
            found = self._texts(body)
            for text, _ in found if judges else ():
                webhook.signature.verify_event(text)
            if is_test:
                return ()
            events = tuple(self._event(text, place, request, now) for text, place in found)
        except UnexpectedShape as error:
            raise MalformedWebhook(f"the webhook is not as declared: {error}") from error
        if not events and not webhook.empty:
            raise MalformedWebhook(f"{webhook.root or 'the body'} is an empty array; wanted events")
        return events

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the keys that an unverified webhook claims."""
        body = self._json(request.body)
        if body is None or peek(body, msgspec.Raw) is None:
            return ()
        try:
            return tuple(self._fields.key_in(text, request) for text, _ in self._texts(body)[:MOST_CLAIMED])
        except UnexpectedShape:
            return ()

    def render(
        self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime
    ) -> WebhookMessage | CannotRender:
        """Return the event as the list or the webhook had it, in the webhook's envelope, signed now with `secret`."""
        headers = {name: value for name in self.carried if (value := self._derived(name, event)) is not None}
        lacking = [name for name in self.carried if name not in headers]
        if lacking:
            return CannotRender(reason=f"only a webhook has the header {lacking[0]}, and none brought this event")
        headers |= {name: value for name in self.optional if (value := self._derived(name, event)) is not None}
        body, content_type = self._body(event), "application/json"
        if self._webhook.form:
            content_type = "application/x-www-form-urlencoded"
        signed = self._webhook.signature.sign(secret, event.key, body, target_url, now, {**event.headers, **headers})
        if signed is None or self._webhook.signature.is_of_events:
            return CannotRender(reason="the secret is not of the kind that signs")
        return WebhookMessage(headers={"content-type": content_type, **headers, **signed}, body=body)

    def _body(self, event: RecordedEvent) -> bytes:
        webhook, body = self._webhook, event.payload
        if webhook.form:
            return urlencode(decode_or_none(body, dict[str, str]) or {}).encode()
        body = _within(body, webhook.item)
        for path in reversed(webhook.arrays if webhook.many else [webhook.root]):
            body = _within(b"[%b]" % body if webhook.many else body, path)
        return body

    def _derived(self, name: str, event: RecordedEvent | None) -> str | None:
        """Return the value of a header that came, or of one that holds a part of the event alone; None: unknown."""
        if event is not None and name in event.headers:
            return event.headers[name]
        for expression, part in ((self._fields.key, "key"), (self._fields.type, "type")):
            if places.only_header(expression) == name:
                return "" if event is None else str(getattr(event, part))
        return None

    def _json(self, body: bytes) -> bytes | None:
        """Return the body as JSON; None if it is no form and should be."""
        if not self._webhook.form:
            return body
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
        except ValueError:
            return None
        return msgspec.json.encode(dict(pairs))

    def _is_ignored(self, parts: Parts) -> bool:
        found = ((places.found_text(parts, place), wanted) for place, wanted in self._webhook.ignore.items())
        return any(text is not None and wanted in (ANY, text) for text, wanted in found)

    def _texts(self, body: bytes) -> list[Found]:
        webhook = self._webhook
        if not webhook.many:
            return [(raw_at(body, webhook.root) if webhook.root else body, webhook.root)]
        found: list[Found] = [(body, "")]
        for path in webhook.arrays:
            found = [inner for text, place in found for inner in _elements(text, place, path)]
        return [_inside(text, place, webhook.item) for text, place in found] if webhook.item else found

    def _event(self, text: msgspec.Raw | bytes, place: str, request: WebhookRequest, now: datetime) -> RemoteEvent:
        event = self._fields.read(text, place, request, now)
        unlisted = self._webhook.unlisted
        return msgspec.structs.replace(event, listable=False) if event.key.startswith(unlisted) else event


def _within(body: bytes, path: str) -> bytes:
    """Return `body` as the value at `path` of an object."""
    for name in reversed(path.split(".") if path else []):
        body = b"{%b:%b}" % (msgspec.json.encode(name), body)
    return body


def _inside(text: msgspec.Raw | bytes, place: str, path: str) -> Found:
    try:
        return raw_at(text, path), f"{place}.{path}"
    except UnexpectedShape as error:
        raise error.inside(place) from error


def _elements(text: msgspec.Raw | bytes, place: str, path: str) -> list[Found]:
    """Return the elements of the array at `path` in `text`, each with its path in the whole body."""
    try:
        rows = rows_at(text, path)
    except UnexpectedShape as error:
        raise error.inside(place) from error
    whole = f"{place}.{path}" if place else path
    return [(row, f"{whole}[{at}]") for at, row in enumerate(rows)]
