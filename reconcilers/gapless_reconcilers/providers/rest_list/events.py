"""Maps the JSON of one event to the event, in the same way for rows of the list and for webhooks."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from gapless_reconcilers.kit.contract import RemoteEvent, WebhookRequest
from gapless_reconcilers.kit.decoders import recordable
from gapless_reconcilers.kit.errors import UnexpectedShape
from gapless_reconcilers.providers.rest_list import places
from gapless_reconcilers.providers.rest_list.places import Parts

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,9})?", re.ASCII)
_TIMES: Final = ("unix_s", "unix_ms")


class EventFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The positions of the parts of an event: expressions, see `places`."""

    key: str = "id"
    """The vendor's identity of the event, the same in webhook and list."""
    type: str = "type"
    """Its type: `event_type`, or `{resource_type}.{action}`."""
    time: str = "created_at"
    """Its time of occurrence; `received`: it has none, so that of its receipt is taken, which is said."""
    time_format: Literal["rfc3339", "iso_utc", "unix_s", "unix_ms"] = "rfc3339"
    """The format of the time; `iso_utc`: without a zone it is UTC. Numbers may be texts, and have a fraction."""
    object: str | None = None
    """The object that it is about; None: no path, or one that only some events have, is named."""
    exact: bool = True
    """False if this is not the same time as in the list, but within its grace."""

    def read(
        self,
        text: msgspec.Raw | bytes,
        place: str,
        request: WebhookRequest | None = None,
        received: datetime | None = None,
        payload: msgspec.Raw | bytes | None = None,
    ) -> RemoteEvent:
        """Return the event in `text`, found at `place`; `payload` is stored, None: `text`. Raises `UnexpectedShape`."""
        return recordable(place, self._event, Parts(text, request), received, text if payload is None else payload)

    def key_in(self, text: msgspec.Raw | bytes, request: WebhookRequest | None = None) -> str:
        """Return the key of the event in `text`. Raises `UnexpectedShape`."""
        return places.text_of(Parts(text, request), self.key)

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Yield name and expression of each part."""
        yield from (("key", self.key), ("type", self.type), ("time", self.time))
        if self.object is not None:
            yield "object", self.object

    @property
    def takes_receipt(self) -> bool:
        """True if the time may be that of the receipt."""
        return places.RECEIVED in self.time.split(" | ")

    def _event(self, parts: Parts, received: datetime | None, payload: msgspec.Raw | bytes) -> RemoteEvent:
        return RemoteEvent(
            key=places.text_of(parts, self.key),
            type=places.text_of(parts, self.type),
            occurred_at=self._time(parts, received),
            payload=payload,
            object_key=None if self.object is None else places.found_text(parts, self.object),
        )

    def _time(self, parts: Parts, received: datetime | None) -> datetime:
        if received is None or not self.time.endswith(places.RECEIVED):
            return self._read_time(parts, self.time)
        named, _, last = self.time.rpartition(" | ")
        if last != places.RECEIVED:
            return self._read_time(parts, self.time)
        try:
            return self._read_time(parts, named) if named else received
        except UnexpectedShape:
            return received

    def _read_time(self, parts: Parts, expression: str) -> datetime:
        value = places.value_of(parts, expression)
        if self.time_format in _TIMES:
            return EPOCH + timedelta(
                **{"seconds" if self.time_format == "unix_s" else "milliseconds": _number(value, expression)}
            )
        if not isinstance(value, str):
            raise UnexpectedShape(expression, type(value).__name__, "a text with a time")
        try:
            time = datetime.fromisoformat(f"{value[:-4]}Z" if value.endswith(" UTC") else value)
        except ValueError:
            raise UnexpectedShape(expression, "not readable as a time", "one like 2026-11-20T12:00:00Z") from None
        if time.utcoffset() is None and self.time_format == "iso_utc":
            time = time.replace(tzinfo=UTC)
        return time.astimezone(UTC) if time.utcoffset() is not None else time


def _number(value: object, path: str) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnexpectedShape(path, type(value).__name__, "a number")
    return value
