"""What the routes of `/api/v1` share: the parameters of a query, and pages with a cursor.

A page is `{"items": […], "next": …}`: send `next` as `cursor` to get the page after it; null: there is none.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from litestar import Request, Response
from msgspec import Meta, Struct

from gapless.console.routing import respond_json
from gapless.operations.context import OperationForbidden, OperationRefused
from gapless.operations.principals import Principal, names_in

Q = TypeVar("Q", bound=Struct)
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\A[^\x00]*\Z")]
Number: TypeAlias = Annotated[int, Meta(ge=0, lt=2**62)]
PAGE: Final = 100


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of every page."""

    cursor: Text | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = PAGE


def read_query(request: Request[Any, Any, Any], kind: type[Q]) -> Q:
    """Return the parameters of the request. One that may occur several times has a tuple. Raises `OperationRefused`."""
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    values: dict[str, object] = {}
    for name, value in request.query_params.multi_items():
        if name in fields and "tuple" in str(fields[name].type):
            values.setdefault(name, []).append(value)  # type: ignore[attr-defined]
        elif name in values:
            raise OperationRefused(f"the parameter {name} is there twice; name it once")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise OperationRefused(f"{error}; the parameters are {', '.join(sorted(fields))}") from error


def respond_page(items: Sequence[object], following: str | None) -> Response[bytes]:
    """Return one page of a list."""
    return respond_json(HTTPStatus.OK, {"items": items, "next": following})


def read_number(cursor: str | None) -> int | None:
    """Return the number in a cursor. Raises `OperationRefused`."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and int(cursor[:20]) < 2**62):
        raise OperationRefused("cursor is none that a page had as next")
    return int(cursor[:20])


def allowed_sources(principal: Principal, wanted: str | None) -> tuple[str, ...] | None:
    """Return the sources that a list may show; None: all. Raises `OperationForbidden` if `wanted` is not among them."""
    return _allowed("sources", principal.sources, wanted, principal)


def allowed_destinations(principal: Principal, wanted: str | None) -> tuple[str, ...] | None:
    """Return the destinations that a list may show; None: all. Raises `OperationForbidden`, as for sources."""
    return _allowed("destinations", principal.destinations, wanted, principal)


def _allowed(
    what: str, limits: frozenset[str] | None, wanted: str | None, principal: Principal
) -> tuple[str, ...] | None:
    if wanted is None:
        return None if limits is None else tuple(sorted(limits))
    if limits is not None and wanted not in limits:
        raise OperationForbidden(f"{principal.name} is limited to {what} {names_in(limits)}")
    return (wanted,)
