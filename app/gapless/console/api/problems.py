"""Errors of the API under `/api/v1`: problem details (RFC 9457), all of one shape."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from litestar import Response
from litestar.openapi import ResponseSpec
from msgspec import Struct

from gapless.console.routing import respond_as

PROBLEM_JSON: Final = "application/problem+json"
PREFIX: Final = "/api/v1"


class Problem(Struct, frozen=True, kw_only=True):
    """What was wrong, and what to do next."""

    title: str
    """The meaning of the status."""
    status: int
    detail: str
    """What was wrong with this request, what was wanted, and what to do next."""
    error: str
    """The same as `detail`, under the name that other paths of the API have for it."""
    type: str = "about:blank"


def problem(status: int, detail: str, extra: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return a response that says what was wrong, with `extra` headers."""
    value = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, error=detail)
    return respond_as(PROBLEM_JSON, status, value, extra)


def documented(*statuses: HTTPStatus) -> dict[int, ResponseSpec]:
    """Return what the OpenAPI document says of these statuses."""
    return {
        int(status): ResponseSpec(
            data_container=Problem, description=MEANINGS[status], media_type=PROBLEM_JSON, generate_examples=False
        )
        for status in statuses
    }


MEANINGS: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.BAD_REQUEST: "A parameter, a cursor or the body is not what was wanted, or the operation was refused.",
    HTTPStatus.UNAUTHORIZED: "A token is needed, or it is not valid.",
    HTTPStatus.FORBIDDEN: "The token does not open this: its role, its limits, or where the request comes from.",
    HTTPStatus.NOT_FOUND: "There is none of that name.",
    HTTPStatus.CONFLICT: "Another person must approve it first, or the same key was used for something else.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is no JSON: send content-type application/json.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong tokens came from this address; Retry-After says when to go on.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store does not answer.",
}
OF_READS: Final = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
OF_WRITES: Final = {
    **OF_READS,
    **documented(HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
}
