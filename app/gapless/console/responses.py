"""HTTP responses of the private listener."""

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def respond(status_code: int, body: bytes, media_type: str, headers: Mapping[str, str] = HEADERS) -> Response[bytes]:
    """A response of `body`."""
    return Response(content=body, status_code=status_code, media_type=media_type, headers=dict(headers))


def respond_text(status_code: int, text: str) -> Response[bytes]:
    """A response of one line of text."""
    return respond(status_code, f"{text}\n".encode(), TEXT)


def respond_json(status_code: int, value: object, extra: Mapping[str, str] | None = None) -> Response[bytes]:
    """A response of `value` as JSON, with `extra` headers."""
    return respond(status_code, msgspec.json.encode(value), JSON, {**HEADERS, **(extra or {})})
