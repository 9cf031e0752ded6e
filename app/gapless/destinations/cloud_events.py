"""An event in the form of CloudEvents 1.0, for kinds of destinations that offer it.

A kind sends either the whole event as JSON (`structured`), or the body as it is with `attributes` beside it, under the
names that the binding of its protocol has for them (`binary`; for HTTP, `http_headers`).

Source: CloudEvents 1.0.2, its JSON format and its HTTP binding, read November 2026.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from string import ascii_letters, digits, punctuation
from typing import Annotated, Final, TypeAlias
from urllib.parse import quote

import msgspec

from gapless.destinations.contract import Delivery

STRUCTURED_TYPE: Final = "application/cloudevents+json"
JSON_TYPE: Final = "application/json"
UNKNOWN_TYPE: Final = "application/octet-stream"
HEADER_SAFE: Final = (ascii_letters + digits + punctuation).replace("%", "").replace('"', "")
"""Characters of an attribute that the HTTP binding does not percent-encode."""
NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that no attribute may have."""

Origin: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[A-Za-z0-9/._~:@!$&'()*+,;=-]*[A-Za-z0-9_~-]\Z",
        description="the beginning of a URI reference, such as /gapless or https://gapless.acme.example",
    ),
]


class EventFormat(StrEnum):
    """The form of a delivery's body."""

    PAYLOAD = "payload"
    STRUCTURED = "cloudevents-structured"
    BINARY = "cloudevents-binary"


def attributes(delivery: Delivery, origin: str) -> dict[str, str]:
    """Return the attributes of the event, without its data. `origin` is what the URI of each source begins with.

    An event has the same `id` and `source` on all attempts and replays, by which consumers recognise repeats.
    """
    return {
        "specversion": "1.0",
        "id": delivery.id,
        "source": f"{origin}/{quote(delivery.source, safe='')}",
        "type": _text(delivery.type),
        "subject": _text(delivery.key),
        "time": delivery.occurred_at.isoformat(),
        "datacontenttype": content_type(delivery),
    }


def structured(delivery: Delivery, origin: str) -> bytes:
    """Return the event as one JSON document. A payload that is no JSON is in `data_base64`."""
    known: dict[str, object] = dict(attributes(delivery, origin))
    if is_json(delivery.payload):
        known["data"] = msgspec.Raw(delivery.payload)
    else:
        known["data_base64"] = b64encode(delivery.payload).decode()
    return msgspec.json.encode(known)


def http_headers(delivery: Delivery, origin: str) -> dict[str, str]:
    """Return the headers that stand beside the payload in HTTP's binary mode."""
    named = attributes(delivery, origin)
    kind = named.pop("datacontenttype")
    return {"content-type": kind, **{f"ce-{name}": quote(value, safe=HEADER_SAFE) for name, value in named.items()}}


def content_type(delivery: Delivery) -> str:
    """Return the media type of the payload: JSON, else what its webhook said, else unknown bytes."""
    return JSON_TYPE if is_json(delivery.payload) else _said(delivery.headers)


def is_json(payload: bytes) -> bool:
    """Return True if the payload can stand in a JSON document as it is."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        payload.decode()
        msgspec.json.decode(payload, type=msgspec.Raw)
        return True
    return False


def _said(headers: Mapping[str, str]) -> str:
    said = headers.get("content-type", "")
    return said if said.isascii() and said.isprintable() and "/" in said else UNKNOWN_TYPE


def _text(value: str) -> str:
    """Return the text with the characters percent-encoded that no attribute may have."""
    return NOT_TEXT.sub(lambda found: quote(found[0].encode(errors="replace")), value)
