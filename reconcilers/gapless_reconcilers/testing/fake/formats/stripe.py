"""Stripe's format for the fake provider: `/v1/events` and the other paths that a source reads, and signed webhooks."""

import hashlib
import hmac
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl

from gapless_reconcilers.kit.contract import OWN_STREAM, Order
from gapless_reconcilers.testing.fake.event_store import FakeEvent, ListSemantics, Query, UnknownCursorError
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

SEMANTICS = ListSemantics(
    order=Order.NEWEST_FIRST,
    resolution=timedelta(seconds=1),
    history=timedelta(days=30),
    default_limit=10,
    most_per_page=100,
)
V2_EVENTS = "/v2/core/events/"
OF_V2 = "v2."
"""The beginning of types of thin events, which the list of v1 never shows."""
_UNKNOWN_SECRET = "whsec_nobody_knows_this_one"  # noqa: S105 - a fault, not a secret
_WORDS = {
    401: "Invalid API Key provided",
    404: "Unrecognized request URL",
    429: "Too many requests",
    500: "Server error",
}


class _BadRequestError(Exception):
    """The request is one that Stripe refuses."""

    def __init__(self, message: str, *, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeFormat:
    """One account in one mode. `padding` adds bytes to each object, to make events of a real size."""

    semantics: ListSemantics = SEMANTICS
    api_key: str = "sk_live_fake"
    account: str = "acct_fake"
    livemode: bool = True
    api_version: str = "2026-09-30.endive"
    padding: int = 0

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Return `evt_` and 96 random bits: unique, and not in order, like Stripe's."""
        return f"evt_{chance.getrandbits(96):024x}"

    def object_id(self, number: int, event_type: str) -> str:
        """Such as `invoice_00000012`."""
        return f"{event_type.split('.', 1)[0]}_{number:08}"

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the bearer token is our key."""
        return request.headers.get("authorization") == f"Bearer {self.api_key}"

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        """Return the response of the API."""
        if request.path.startswith(V2_EVENTS):
            return self._whole(request.path.removeprefix(V2_EVENTS), state)
        try:
            return self._route(request, state)
        except _BadRequestError as error:
            return _refusal(400, str(error), param=error.param, code=error.code)

    def _route(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        stream = request.headers.get("stripe-account", OWN_STREAM)
        match request.path.removeprefix("/v1/").split("/"):
            case ["events"]:
                return self._events(request, stream, state)
            case ["events", key]:
                return self._event(key, stream, state)
            case ["accounts"]:
                return self._accounts(request, state)
            case ["account"]:
                return _json({"id": stream or self.account, "object": "account"})
            case ["webhook_endpoints", *rest]:
                return self._endpoints(request, rest, state)
            case _:
                return self.refuse(404)

    def refuse(self, status: int) -> ApiAnswer:
        """Return an error of Stripe's form; a 429 has the reason "rate"."""
        headers = {"Stripe-Rate-Limited-Reason": "global-rate"} if status == 429 else {}  # noqa: PLR2004
        return _refusal(status, _WORDS.get(status, "Something went wrong"), headers=headers)

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """Return the snapshot event in the endpoint's version, or the thin event, signed with `t` and one `v1`."""
        body = (
            json.dumps(self.thin(event)).encode()
            if event.type.startswith(OF_V2)
            else self.encode(event, version=endpoint.api_version, with_account=True)
        )
        sent_at = int(now.timestamp())
        secret = endpoint.secret if genuine else _UNKNOWN_SECRET
        signature = hmac.new(secret.encode(), b"%d.%b" % (sent_at, body), hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "stripe-signature": f"t={sent_at},v1={signature}",
        }
        return Message(headers=headers, body=body)

    def encode(self, event: FakeEvent, *, version: str | None = None, with_account: bool = False) -> bytes:
        """Return the event as JSON. The webhook's differs from the list's by version and, on Connect, by `account`."""
        account = b'"account":"%b",' % event.stream.encode() if with_account and event.stream else b""
        return _EVENT % {
            b"id": event.key.encode(),
            b"account": account,
            b"version": (version or self.api_version).encode(),
            b"created": _seconds(event.occurred_at),
            b"object": event.object_id.encode(),
            b"kind": event.type.rpartition(".")[0].encode(),
            b"padding": b"x" * self.padding,
            b"livemode": b"true" if self._livemode(event) else b"false",
            b"type": event.type.encode(),
        }

    def thin(self, event: FakeEvent) -> dict[str, Any]:
        """Return a v2 event as its webhook has it: a reference to the object without its data."""
        return {
            "id": event.key,
            "object": "v2.core.event",
            "type": event.type,
            "created": event.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "livemode": self._livemode(event),
            "context": event.stream or None,
            "reason": None,
            "related_object": {"id": event.object_id, "type": "v2.core.account", "url": f"/v2/{event.object_id}"},
        }

    def _livemode(self, event: FakeEvent) -> bool:
        return self.livemode if event.livemode is None else event.livemode

    def _whole(self, key: str, state: FakeState) -> ApiAnswer:
        """Return a v2 event with its data."""
        event = state.find(key)
        if event is None or not event.type.startswith(OF_V2):
            return self.refuse(404)
        return _json({**self.thin(event), "data": {"of": event.object_id}, "changes": {}})

    def _events(self, request: ApiRequest, stream: str, state: FakeState) -> ApiAnswer:
        query = Query(
            stream=stream,
            limit=self._limit(request),
            start=_bound(request, "created[gte]", "created[gt]"),
            end=_bound(request, "created[lt]", "created[lte]"),
            after=request.param("starting_after"),
            before=request.param("ending_before"),
            types=_type_filter(request),
        )
        try:
            listing = state.read(query)
        except UnknownCursorError as error:
            param = "starting_after" if query.after else "ending_before"
            raise _BadRequestError(f"No such event: '{error}'", param=param, code="resource_missing") from None
        rows = b",".join([self.encode(event) for event in listing.events])
        more = b"true" if listing.has_more else b"false"
        return ApiAnswer(status=200, body=_LIST % {b"rows": rows, b"more": more})

    def _event(self, key: str, stream: str, state: FakeState) -> ApiAnswer:
        event = state.find(key)
        if event is None or event.stream != stream:
            return _refusal(404, f"No such event: '{key}'", param="id", code="resource_missing")
        return ApiAnswer(status=200, body=self.encode(event))

    def _accounts(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        streams, limit = state.streams()[::-1], self._limit(request)
        after = request.param("starting_after")
        first = streams.index(after) + 1 if after in streams else 0
        rows = [{"id": stream, "object": "account"} for stream in streams[first : first + limit]]
        return _rows(rows, request.path, has_more=first + limit < len(streams))

    def _endpoints(self, request: ApiRequest, rest: list[str], state: FakeState) -> ApiAnswer:
        """Return all endpoints, a new one with its secret, or one that was switched on or off."""
        if request.method == "GET":
            rows = [self._endpoint(endpoint) for endpoint in state.endpoints]
            return _rows(rows, request.path, has_more=False)
        form = dict(parse_qsl(request.body.decode()))
        if not rest:
            secret = f"whsec_of_endpoint_{len(state.endpoints)}"
            types = (form["enabled_events[]"],)
            made = state.add_endpoint(form["url"], secret=secret, types=types, connect=form.get("connect") == "true")
            return _json({**self._endpoint(made), "secret": secret})
        found = next((each for each in state.endpoints if f"we_{each.number}" == rest[0]), None)
        if found is None:
            return self.refuse(404)
        found.enabled = form["disabled"] == "false"
        return _json(self._endpoint(found))

    def _endpoint(self, endpoint: FakeEndpoint) -> dict[str, Any]:
        return {
            "id": f"we_{endpoint.number}",
            "object": "webhook_endpoint",
            "url": endpoint.url,
            "status": "enabled" if endpoint.enabled else "disabled",
            "enabled_events": list(endpoint.types),
            "api_version": endpoint.api_version,
            "application": "ca_fake" if endpoint.connect else None,
            "livemode": self.livemode,
        }

    def _limit(self, request: ApiRequest) -> int:
        text = request.param("limit") or str(self.semantics.default_limit)
        if not text.isdigit() or not 1 <= int(text) <= self.semantics.most_per_page:
            raise _BadRequestError(f"Invalid integer: {text}", param="limit")
        return int(text)


_EVENT = (
    b'{"id":"%(id)b","object":"event",%(account)b"api_version":"%(version)b","created":%(created)d,'
    b'"data":{"object":{"id":"%(object)b","object":"%(kind)b","description":"%(padding)b"}},'
    b'"livemode":%(livemode)b,"pending_webhooks":1,"request":{"id":null,"idempotency_key":null},"type":"%(type)b"}'
)
_LIST = b'{"object":"list","data":[%(rows)b],"has_more":%(more)b,"url":"/v1/events"}'


def _bound(request: ApiRequest, inclusive: str, exclusive: str) -> datetime | None:
    """Return the time of a filter: `gte` and `lt` unchanged, `gt` and `lte` one second later."""
    for name, shift in ((inclusive, 0), (exclusive, 1)):
        text = request.param(name)
        if text is not None:
            if not text.isdigit():
                raise _BadRequestError(f"Invalid timestamp: {text}", param="created")
            return datetime.fromtimestamp(int(text) + shift, UTC)
    return None


def _type_filter(request: ApiRequest) -> Any:
    pattern = request.param("type")
    names = frozenset(value for key, value in request.params if key == "types[]")
    if pattern is not None and names:
        raise _BadRequestError("You may only specify one of these parameters: type, types.", param="type")
    if pattern is not None:
        return lambda kind: not kind.startswith(OF_V2) and fnmatchcase(kind, pattern)
    return lambda kind: not kind.startswith(OF_V2) and (not names or kind in names)


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> ApiAnswer:
    return ApiAnswer(status=status, body=json.dumps(value).encode(), headers=headers or {})


def _rows(rows: list[dict[str, Any]], url: str, *, has_more: bool) -> ApiAnswer:
    return _json({"object": "list", "data": rows, "has_more": has_more, "url": url})


def _refusal(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> ApiAnswer:
    error = {"type": "invalid_request_error", "message": message, "param": param, "code": code}
    return _json({"error": {name: value for name, value in error.items() if value}}, status, headers)
