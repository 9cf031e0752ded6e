"""The HTTP answers, each built once as the pair of ASGI messages that is sent."""

import random
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec

from gapless.receive.webhook import ENCODING, METHOD, REASONS
from gapless_reconcilers.kit.contract import Answer

Message = dict[str, Any]
Response = tuple[Message, Message]
"""`http.response.start` and the one `http.response.body`. Shared between requests: never changed."""

JSON: Final = "application/json"
RETRY_AFTER_S: Final = range(2, 9)
"""Seconds in `Retry-After`: spread, so that refused senders do not return together."""


def response(status: int, body: bytes, content_type: str, extra: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """Return the two messages of an answer."""
    headers: list[tuple[bytes, bytes]] = list(extra)
    if status != HTTPStatus.NO_CONTENT:  # RFC 9110, 8.6: it must not carry a length
        headers += [(b"content-type", content_type.encode("latin-1")), (b"content-length", b"%d" % len(body))]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


def of_provider(answer: Answer) -> Response:
    """Return the answer that the provider prescribes after the commit."""
    extra = tuple((name.lower().encode(), value.encode()) for name, value in answer.headers)
    return response(answer.status, answer.body, answer.content_type, extra)


def _json(status: int, body: Mapping[str, str], extra: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    return response(status, msgspec.json.encode(body), JSON, extra)


@cache
def refused(status: int, reason: str, methods: tuple[str, ...] = ("POST",)) -> Response:
    """Return a 4xx with a general reason. `reason` is one of `REASONS`, so the cache is bounded."""
    extra = {METHOD: ((b"allow", ", ".join(methods).encode()),), ENCODING: ((b"accept-encoding", b"identity"),)}
    return _json(status, {"error": "refused", "reason": reason, "detail": REASONS[reason]}, extra.get(reason, ()))


_CLOSE: Final = ((b"connection", b"close"),)
TOO_LARGE: Final = _json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "too_large"}, _CLOSE)
"""413. The connection is closed after it."""
TOO_LARGE_UNREAD: Final = (TOO_LARGE[0], {**TOO_LARGE[1], "more_body": True})
"""The same while the sender still sends; `END` follows it once the sender had time to read it."""
END: Final[Message] = {"type": "http.response.body", "body": b""}
FOREIGN_ADDRESS: Final = _json(
    HTTPStatus.FORBIDDEN,
    {"error": "refused", "detail": "webhooks of this source are not taken from your address"},
    _CLOSE,
)
"""403. The body is not read, so the connection is closed after it."""
CUT: Final = _json(HTTPStatus.REQUEST_TIMEOUT, {"error": "body_incomplete"}, _CLOSE)
"""408, in case the sender still reads it."""
HEALTHY: Final = response(HTTPStatus.OK, b"ok\n", "text/plain; charset=utf-8")
UNROUTED: Final = _json(HTTPStatus.NOT_FOUND, {"error": "not_found"})
WRONG_METHOD: Final = _json(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "method"}, ((b"allow", b"GET, HEAD"),))

_UNAVAILABLE: Final = tuple(
    _json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "unavailable"}, ((b"retry-after", b"%d" % seconds),))
    for seconds in RETRY_AFTER_S
)


def unavailable() -> Response:
    """Return a 503 with one of a few values of `Retry-After`."""
    return random.choice(_UNAVAILABLE)  # noqa: S311 - spreads load, needs no secrecy
