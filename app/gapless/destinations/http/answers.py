"""What is kept of an HTTP answer: headers of an allow list, and the beginning of a body that is text. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from gapless import masking
from gapless.destinations.contract import Answer

ALWAYS: Final = frozenset(("content-type", "retry-after", "server", "x-request-id", "request-id"))
"""Headers that are kept of every answer: they tell who answered, and find the request in the handler's own log."""
CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
"""Characters that no text has."""


class AnswerBody(NamedTuple):
    """The beginning of a body, as it came."""

    content: bytes
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswers:
    """What a destination keeps of answers: headers by lower-case name, and whether the body."""

    headers: frozenset[str]
    body: bool

    @classmethod
    def of(cls, names: Iterable[str], *, body: bool) -> Self:
        """Return what is kept if the configuration names further headers."""
        return cls(headers=ALWAYS.union(name.lower() for name in names), body=body)


def read(
    status: int, headers: Mapping[str, str], body: AnswerBody, kept: KeptAnswers, secrets: Collection[str] = ()
) -> Answer:
    """Return what is kept of an answer. A body that is compressed, or no text, is left out.

    `secrets`: what was sent with the delivery and may not be shown, because a handler may send back what it got.
    """
    chosen = {
        name.lower(): masking.hidden(value, secrets) for name, value in headers.items() if name.lower() in kept.headers
    }
    text = None
    if kept.body and body.content and headers.get("content-encoding", "identity").lower() == "identity":
        text = _as_text(body)
    shown = masking.hidden(text or "", secrets, is_cut=body.is_cut)
    return Answer(status=status, headers=chosen, body=shown, is_cut=bool(text) and body.is_cut)


def _as_text(body: AnswerBody) -> str | None:
    """Return the body as text; None: it is none. In a body that was cut, the last character may be cut too."""
    try:
        text = body.content.decode()
    except UnicodeDecodeError as error:
        if not body.is_cut or error.start < len(body.content) - 3:
            return None
        text = body.content[: error.start].decode()
    return None if CONTROL.search(text) else text
