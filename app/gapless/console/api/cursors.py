"""Opaque cursors of lists: where the page before ended. Pure."""

import base64
import binascii
from http import HTTPStatus
from typing import Final

import msgspec
from litestar.exceptions import HTTPException

GREATEST: Final = 2**63 - 1
_decoder = msgspec.json.Decoder(tuple[str, tuple[int, ...]])


def encode(noun: str, after: tuple[int, ...] | None) -> str | None:
    """Return the cursor of the next page of a list of `noun`; None: there is none."""
    if after is None:
        return None
    return base64.urlsafe_b64encode(msgspec.json.encode((noun, after))).decode().rstrip("=")


def decode(noun: str, cursor: str | None, length: int = 1) -> tuple[int, ...] | None:
    """Return where the page goes on; None: at the beginning. Raises `HTTPException` (400) for a foreign cursor."""
    if cursor is None:
        return None
    try:
        of, after = _decoder.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        of, after = "", ()
    if of != noun or len(after) != length or not all(-GREATEST <= each <= GREATEST for each in after):
        detail = "cursor is none of this list; take `next` of the page before, as it is"
        raise HTTPException(status_code=HTTPStatus.BAD_REQUEST, detail=detail)
    return after
