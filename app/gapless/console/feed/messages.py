"""What listeners ask for, and the messages that they are sent. Pure."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gapless import masking
from gapless.destinations.contract import event_id
from gapless.domain import ALL_TYPES, EventMode, TypePatterns, Via, from_us, to_us
from gapless.ledger import feed
from gapless.ledger.feed import FeedEvent, Position
from gapless.operations.context import OperationRefused
from gapless.settings.parsers import ParseFailed, duration

PARAMETERS: Final = ("source", "types", "via", "after", "since", "key", "payload")
KEYS: Final = 100
PATTERNS: Final = 50
TYPE: Final = re.compile(r"[^\s*,]{1,200}\*?|\*")
ALL_VIA: Final = frozenset(Via)
LONGEST: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRequest:
    """What one listener wants. `sources` None: all. `after` and `since_us` None: from now on.

    With both, what was recorded since that time after that position.
    """

    sources: frozenset[str] | None = None
    types: TypePatterns = ALL_TYPES
    via: frozenset[Via] = ALL_VIA
    after: Position | None = None
    since_us: int | None = None
    keys: tuple[str, ...] = ()
    """Events that are sent first, once more."""
    payload: bool = False

    def wants(self, item: "Item") -> bool:
        """Return True if the listener wants that event."""
        return (
            (self.sources is None or item.source in self.sources)
            and item.via in self.via
            and item.type in self.types
            and (self.since_us is None or item.recorded_us >= self.since_us)
        )

    @property
    def filter(self) -> tuple[object, ...]:
        """What it shares with others that are sent the very same."""
        return (self.sources, self.types, self.via, self.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One event, encoded once for all listeners."""

    position: Position
    source: str
    type: str
    via: str
    recorded_us: int
    payload_id: int | None
    head: str
    """Its JSON object without the last brace."""
    payload: str | None = None
    """The members of its payload, with a comma before the first; None: not read."""

    def json(self, *, payload: bool) -> str:
        """Return its JSON object."""
        return f"{self.head}{self.payload or ''}}}" if payload else f"{self.head}}}"

    @property
    def size(self) -> int:
        """About the bytes that it holds."""
        return len(self.head) + len(self.payload or "")


def read_query(pairs: Iterable[tuple[str, str]], now: datetime) -> FeedRequest:
    """Return what a query asks for. Raises `OperationRefused`."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            raise OperationRefused(f"the stream has no parameter {name[:40]!r}; it has {', '.join(PARAMETERS)}")
        given.setdefault(name, []).extend(value.split(",") if name in ("source", "types", "via") else [value])
    for name in ("after", "since", "payload"):
        if len(given.get(name, ())) > 1:
            raise OperationRefused(f"{name} is given more than once")
    if len(given.get("key", ())) > KEYS:
        raise OperationRefused(f"key is given {len(given['key'])} times; wanted at most {KEYS}")
    return FeedRequest(
        sources=frozenset(given["source"]) - {""} or None if "source" in given else None,
        types=_types(given.get("types", [])),
        via=_via(given.get("via", [])),
        after=_after(given["after"][0]) if "after" in given else None,
        since_us=_since(given["since"][0], now) if "since" in given else None,
        keys=tuple(given.get("key", ())),
        payload=_payload(given.get("payload", ["false"])[0]),
    )


def _types(texts: Sequence[str]) -> TypePatterns:
    patterns = [stripped for text in texts if (stripped := text.strip())]
    wrong = [text for text in patterns if not TYPE.fullmatch(text)]
    if wrong or len(patterns) > PATTERNS:
        found = f"{wrong[0][:40]!r}" if wrong else f"{len(patterns)} of them"
        raise OperationRefused(f"types has {found}; wanted at most {PATTERNS}, such as invoice.paid or invoice.*")
    return TypePatterns(patterns) if patterns else ALL_TYPES


def _via(texts: Sequence[str]) -> frozenset[Via]:
    try:
        return frozenset(Via(text) for text in texts if text) or ALL_VIA
    except ValueError:
        raise OperationRefused(f"via is {','.join(texts)[:40]!r}; wanted some of {', '.join(Via)}") from None


def _after(text: str) -> Position:
    position = feed.read_cursor(text)
    if position is None:
        raise OperationRefused(
            f"after is {text[:40]!r}, which is no cursor; send the last cursor that you got, or leave it out"
        )
    return position


def _since(text: str, now: datetime) -> int:
    try:
        return to_us(now - duration(timedelta(0)).read(text))
    except (ParseFailed, OverflowError):
        pass
    try:
        time = datetime.fromisoformat(text)
        return to_us(time if time.tzinfo else time.replace(tzinfo=now.tzinfo))
    except (ValueError, OverflowError):
        raise OperationRefused(f"since is {text[:40]!r}; wanted such as 2h or 2026-01-31T08:00:00Z") from None


def _payload(text: str) -> bool:
    if text not in ("true", "false"):
        raise OperationRefused(f"payload is {text[:40]!r}; wanted true or false")
    return text == "true"


# --- messages ---------------------------------------------------------------------------------------------------------


def hello(position: Position, now: datetime, heartbeat_s: float) -> str:
    """Return the first message: from its cursor on nothing is left out."""
    return _text({"message": "hello", "cursor": position.cursor, "now": now, "heartbeat_s": heartbeat_s})


def heartbeat(position: Position, read_at: datetime | None) -> str:
    """Return the message of a time without an event. `read_at`: all that was recorded until then has been sent."""
    return _text({"message": "heartbeat", "cursor": position.cursor, "read_at": read_at})


def frames(items: Iterable[Item], most_bytes: int, *, payload: bool) -> Iterator[tuple[str, Position]]:
    """Yield messages with these events, and the position after each message."""
    parts: list[str] = []
    size, position = 0, feed.START
    for item in items:
        text = item.json(payload=payload)
        if parts and size + len(text) > most_bytes:
            yield _events(parts, position), position
            parts, size = [], 0
        parts.append(text)
        size, position = size + len(text), item.position
    if parts:
        yield _events(parts, position), position


def again(items: Iterable[Item], position: Position, *, payload: bool) -> str:
    """Return a message with events that are sent once more, to a listener that stays at `position`."""
    return _events([item.json(payload=payload) for item in items], position, "again")


def _events(parts: Sequence[str], position: Position, message: str = "events") -> str:
    return f'{{"message":"{message}","cursor":"{position.cursor}","events":[{",".join(parts)}]}}'


def encode(event: FeedEvent) -> Item:
    """Return the event without its payload."""
    return Item(
        position=event.position,
        source=event.source,
        type=event.type,
        via=event.via,
        recorded_us=event.first_seen_us,
        payload_id=event.payload_id,
        head=_text(fields_of(event))[:-1],
    )


def fields_of(event: FeedEvent) -> dict[str, object]:
    """Return the members of an event's JSON object, but for its payload."""
    return {
        "cursor": event.position.cursor,
        "id": event_id(event.identity_seed, event.key),
        "key": event.key,
        "source": event.source,
        "stream": event.stream,
        "type": event.type,
        "object": event.object_key,
        "via": event.via,
        "occurred_at": from_us(event.occurred_us),
        "recorded_at": from_us(event.first_seen_us),
        "delay_s": (event.first_seen_us - event.occurred_us) / 1_000_000,
        "mode": None if event.livemode is None else EventMode.of(livemode=event.livemode).value,
        "missed": is_missed(event),
    }


def is_missed(event: FeedEvent) -> bool | None:
    """Return whether its webhook did not come in time; None: it may still come, so that is not judged yet."""
    if event.missed_cause is not None:
        return True
    awaited = event.expected and event.via == Via.LIST and event.webhook_us is None
    return None if awaited else False


def encode_payload(body: bytes | None, headers: Mapping[str, str], mask: Sequence[str]) -> str:
    """Return the members of a payload, masked as for all who look. `body` None: it was pruned, or never stored."""
    if body is None:
        return ',"payload":null,"payload_absent":"pruned, or imported without one"'
    shown = masking.shown(body, mask)
    rest = f',"headers":{_text(dict(headers))},"masked":{"true" if mask else "false"}'
    text = _as_json(shown)
    if text is None:
        return f',"payload_base64":"{base64.b64encode(shown).decode()}"{rest}'
    return f',"payload":{text}{rest}'


def _as_json(content: bytes) -> str | None:
    """Return the content as it is, if it is JSON that can stand within other JSON."""
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
        return content.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
