"""Maps the JSON of one event to the event, in the same way for rows of the list and for webhooks."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from gapless_reconcilers.kit.contract import RemoteEvent
from gapless_reconcilers.kit.decoders import recordable, value_at
from gapless_reconcilers.kit.errors import UnexpectedShape

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PATHS: Final = re.compile(r"\{([^{}]*)\}")


class EventFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The positions of the parts of an event: dotted paths such as `data.id`, or texts with paths in braces."""

    key: str = "id"
    """The vendor's identity of the event, the same in webhook and list."""
    type: str = "type"
    """Its type: `event_type`, or `{resource_type}.{action}`."""
    time: str = "created_at"
    """Its time of occurrence."""
    time_format: Literal["rfc3339", "iso_utc", "unix_s", "unix_ms"] = "rfc3339"
    """The format of the time; `iso_utc`: without a zone it is UTC."""
    object: str | None = None
    """The object that it is about; None: no path, or one that only some events have, is named."""

    def read(self, text: msgspec.Raw | bytes, place: str) -> RemoteEvent:
        """Return the event in `text`, found at `place`. Raises `UnexpectedShape`."""
        return recordable(place, self._event, text)

    def key_in(self, text: msgspec.Raw | bytes) -> str:
        """Return the key of the event in `text`. Raises `UnexpectedShape`."""
        return _text(text, self.key)

    def _event(self, text: msgspec.Raw | bytes) -> RemoteEvent:
        return RemoteEvent(
            key=_text(text, self.key),
            type=_text(text, self.type),
            occurred_at=self._time(text),
            payload=text,
            object_key=None if self.object is None else _found(text, self.object),
        )

    def _time(self, text: msgspec.Raw | bytes) -> datetime:
        value = value_at(text, self.time, object)
        if self.time_format in ("unix_s", "unix_ms"):
            if not isinstance(value, int) or isinstance(value, bool):
                raise UnexpectedShape(self.time, type(value).__name__, "a whole number")
            return EPOCH + (timedelta(seconds=value) if self.time_format == "unix_s" else timedelta(milliseconds=value))
        if not isinstance(value, str):
            raise UnexpectedShape(self.time, type(value).__name__, "a text with a time")
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            raise UnexpectedShape(self.time, "not readable as a time", "one like 2026-11-20T12:00:00Z") from None
        if time.utcoffset() is None and self.time_format == "iso_utc":
            time = time.replace(tzinfo=UTC)
        return time.astimezone(UTC) if time.utcoffset() is not None else time


def _text(text: msgspec.Raw | bytes, path: str) -> str:
    """Return the text at `path`, or `path` with the values of the paths in its braces."""
    if "{" not in path:
        return _scalar(text, path)
    return _PATHS.sub(lambda match: _scalar(text, match[1]), path)


def _scalar(text: msgspec.Raw | bytes, path: str) -> str:
    value = value_at(text, path, object)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UnexpectedShape(path, type(value).__name__, "a text or a whole number")
    return str(value)


def _found(text: msgspec.Raw | bytes, path: str) -> str | None:
    """Return the value at `path`; None if there is none."""
    try:
        return _text(text, path)
    except UnexpectedShape:
        return None
