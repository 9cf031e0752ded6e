"""What each operation takes, checked when it comes in. Times are RFC 3339 with a zone."""

from datetime import datetime
from typing import Annotated, ClassVar, TypeAlias

from msgspec import Meta, Struct

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
Keys: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=1, max_length=10_000)]


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all arguments. `operation` is the name they are sent under."""

    operation: ClassVar[str]


class Rename(Request, frozen=True, kw_only=True):
    """Give a source another name."""

    operation = "source.rename"
    old: Name
    new: Name


class Acknowledge(Request, frozen=True, kw_only=True):
    """Say that what is lost for good was looked into: everything, what ended by `until`, or the named intervals."""

    operation = "source.acknowledge"
    source: Name
    reason: Annotated[str, Meta(max_length=1000, pattern=r"\S")]
    until: Moment | None = None
    intervals: Annotated[tuple[int, ...], Meta(min_length=1, max_length=1000)] | None = None


class Pass(Request, frozen=True, kw_only=True):
    """Read a source's list again: `[since, until)`, or all that was not read yet."""

    operation = "source.pass"
    source: Name
    since: Moment | None = None
    until: Moment | None = None


class PassStatus(Request, frozen=True, kw_only=True):
    """How far passes have come."""

    operation = "pass.status"
    ids: Annotated[tuple[int, ...], Meta(max_length=1000)]


class Seen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event that somebody has processed already."""

    key: str
    type: str = "unknown"
    occurred_at: Moment | None = None


class Import(Request, frozen=True, kw_only=True):
    """Record events as seen, owed to nobody who did not ask for imported ones."""

    operation = "import"
    source: Name
    events: Annotated[tuple[Seen, ...], Meta(max_length=50_000)]


class Replay(Request, frozen=True, kw_only=True):
    """Send recorded events again: by key, or all that occurred in `[since, until)`. `dry_run` only counts."""

    operation = "event.replay"
    destination: Name
    source: Name | None = None
    keys: Keys | None = None
    since: Moment | None = None
    until: Moment | None = None
    dry_run: bool = False


class _LetGo(Request, frozen=True, kw_only=True):
    destination: Name | None = None
    reason: str | None = None
    keys: Keys | None = None


class Requeue(_LetGo, frozen=True, kw_only=True):
    """Give dead letters a fresh budget of attempts; all of them, or those that are named."""

    operation = "dead.requeue"


class ReleaseHeld(_LetGo, frozen=True, kw_only=True):
    """Send what was held back; all of it, or what is named."""

    operation = "held.release"


class ReleaseQuarantined(Request, frozen=True, kw_only=True):
    """Read refused webhooks again with today's secrets: one of them, or all of a source."""

    operation = "quarantine.release"
    id: int | None = None
    source: Name | None = None
