"""What is stored of an attempt's result: bounded, of characters that every database accepts, and masked. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gapless import masking
from gapless.destinations.contract import Answer, Delivered, Failed, Result

DETAIL_MAX: Final = 300
BODY_MAX: Final = 1024
"""Characters of an answer's body that are stored."""
HEADERS_MAX: Final = 32
HEADER_MAX: Final = 256
"""Characters of one header's name and of its value."""


def storable(result: Result, payload: bytes, mask: Sequence[str] = ()) -> Result:
    """Return the result as it is stored: what a consumer says is arbitrary, and may repeat what it got.

    `mask` has the pointers to the values of the payload that are not shown. They are looked for before anything is cut,
    so that no part of one remains.
    """
    match result:
        case Failed(answer=answer):
            detail = _clean(result.detail)[:DETAIL_MAX]
            return replace(result, detail=detail, answer=_storable(answer, payload, mask))
        case Delivered(answer=Answer() as answer):
            return replace(result, answer=_storable(answer, payload, mask))
        case _:
            return result


def _storable(answer: Answer | None, payload: bytes, mask: Sequence[str]) -> Answer | None:
    if answer is None:
        return None
    headers = {
        _clean(name)[:HEADER_MAX]: masking.scrubbed(_clean(value), payload, mask)[:HEADER_MAX]
        for name, value in list(answer.headers.items())[:HEADERS_MAX]
    }
    body = masking.scrubbed(_clean(answer.body), payload, mask, is_cut=answer.is_cut)
    is_cut = answer.is_cut or len(body) > BODY_MAX
    return Answer(status=answer.status, headers=headers, body=body[:BODY_MAX], is_cut=is_cut)


def _clean(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()
