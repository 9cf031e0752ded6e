"""The common parts of formats with one list, one credential and one signature, and writing JSON and times."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, ListSemantics, Query, UnknownCursorError
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message

UNKNOWN_SECRET = "nobody_knows_this_one"  # noqa: S105 - a fault, not a secret


class BadRequestError(Exception):
    """The request is one that the vendor refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainFormat:
    """A vendor with one list of events. Subclasses read requests, and write pages and webhooks."""

    token: str = "token_fake"  # noqa: S105 - of a fake
    semantics: ListSemantics
    listing: ClassVar[tuple[str, str]]
    """Method and path of the list."""

    def event_key(self, number: int, chance: random.Random) -> str:  # noqa: ARG002
        """Return a new event key of the vendor's form."""
        return f"evt_{chance.getrandbits(96):024x}"

    def object_id(self, number: int, event_type: str) -> str:  # noqa: ARG002
        """Return the id of an object for an event that names none."""
        return f"obj_{number:08}"

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the request carries the right credentials."""
        return request.headers.get("authorization") == f"Bearer {self.token}"

    def answer(self, request: ApiRequest, state: FakeState) -> ApiAnswer:
        """Return a page of the list, or an error."""
        if (request.method, request.path) != self.listing:
            return self.refuse(404)
        try:
            listing = state.read(self.query(request))
        except (BadRequestError, UnknownCursorError):
            return self.refuse(400)
        return as_json(self.page(listing, request))

    def refuse(self, status: int) -> ApiAnswer:
        """Return an error."""
        return as_json({"error": {"code": status, "detail": f"refused with {status}"}}, status)

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """Return the webhook for `endpoint`; unless `genuine`, it is signed with an unknown secret."""
        body = json.dumps(self.body(event)).encode()
        secret = endpoint.secret if genuine else UNKNOWN_SECRET
        return Message(
            headers={"content-type": "application/json", **self.sign(body, secret, endpoint, now)}, body=body
        )

    def query(self, request: ApiRequest) -> Query:
        """Return the query of the request. Raises `BadRequestError`."""
        raise NotImplementedError

    def page(self, listing: Listing, request: ApiRequest) -> Any:
        """Return the response body for `listing`."""
        raise NotImplementedError

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        """Return the event as the list shows it."""
        raise NotImplementedError

    def body(self, event: FakeEvent) -> Any:
        """Return the body of the event's webhook."""
        return self.encode(event)

    def sign(self, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime) -> Mapping[str, str]:
        """Return the headers with the signature of `body`."""
        raise NotImplementedError

    def limit(self, text: str | None) -> int:
        """Return the requested number of rows. Raises `BadRequestError`."""
        if text is not None and not (text.isdigit() and 1 <= int(text) <= self.semantics.most_per_page):
            raise BadRequestError("limit")
        return int(text) if text else self.semantics.default_limit


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> ApiAnswer:
    """Return a response with `value` as its body."""
    return ApiAnswer(status=status, body=json.dumps(value).encode(), headers=headers or {})


def written(time: datetime, timespec: str = "milliseconds") -> str:
    """Return `time` as RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def moment(text: str | None) -> datetime | None:
    """Return the time that a parameter names. Raises `BadRequestError`."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise BadRequestError(text) from None


def last_key(listing: Listing) -> str | None:
    """Return the key after which the next page begins, or None if this is the last page."""
    return listing.events[-1].key if listing.has_more else None
