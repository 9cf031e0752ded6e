"""Erases the content of events for good: by key, by object, or by a value in their payloads.

The search is the same for counting and for erasing, so a second run finds what a cut one has left.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gapless import masking
from gapless.ledger import erasure
from gapless.ledger import sources as ledger_sources
from gapless.ledger.erasure import Content, Looked
from gapless.operations.context import Keys, Name, OperationContext, OperationRefused, OperationRequest

Ids = tuple[int, ...]
Text = Annotated[str, Meta(min_length=1, max_length=10_000)]


class EraseEvents(OperationRequest, frozen=True, kw_only=True):
    """Erase what is stored of events: those of `keys`, of an `object`, or with `value` at a JSON `pointer`.

    `dry_run` only counts. `approved` is for requests that a second person has approved: what was found for them.
    """

    operation = "event.erase"
    explained_by = "reason"
    source: Name | None = None
    keys: Keys | None = None
    object: Text | None = None
    pointer: Annotated[str, Meta(pattern=r"^(/[^/]*)+$", max_length=1000)] | None = None
    value: Text | None = None
    reason: Annotated[str, Meta(max_length=1000)] | None = None
    dry_run: bool = False
    approved: "Found | None" = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased: numbers of events and rows, with the criterion as the audit log names it."""

    criterion: str
    events: Ids = ()
    refused: Ids = ()
    rows: Ids = ()
    unknown: int = 0
    """Keys that are not in the ledger."""
    before: int = 0
    """Events of these keys that were erased before."""
    unopened: int = 0
    """What could not be looked into: it is sealed with a key that is not there, or no JSON."""

    @property
    def count(self) -> int:
        """Return the number of events, refused webhooks and rows."""
        return len(self.events) + len(self.refused) + len(self.rows)


async def erase(context: OperationContext, request: EraseEvents) -> dict[str, object]:
    """Erase in batches; each is whole, or not done at all. Returns how much of what."""
    found = await find(context, request)
    counts: dict[str, object] = {
        "events": len(found.events), "refused": len(found.refused), "rows": len(found.rows),
        "unknown": found.unknown, "before": found.before, "unopened": found.unopened,
    }  # fmt: skip
    if request.dry_run:
        return counts
    if not (request.reason or "").strip():
        raise OperationRefused("event.erase needs the reason: the audit log keeps it. Nothing was erased")
    named, now_us = (request.operation, found.criterion), context.now_us
    gone = {"payloads": 0, "attempts": 0, "deliveries": 0}
    for part in erasure.batches(found.events):
        done = await context.write(*named, erasure.erase_events, seqs=part, now_us=now_us)
        gone = {name: count + done[name] for name, count in gone.items()}
    for part in erasure.batches(found.refused):
        await context.write(*named, _counted("refused", partial(erasure.erase_refused, ids=part, now_us=now_us)))
    for part in erasure.batches(found.rows):
        await context.write(*named, _counted("rows", partial(erasure.erase_rows, ids=part)))
    return {**counts, **gone}


def _counted(name: str, work: Callable[..., int]) -> Callable[..., Any]:
    """Return the work with its result named, for the audit log; 0 if it did nothing."""
    return lambda connection: {name: count} if (count := work(connection)) else 0


async def find(context: OperationContext, request: EraseEvents) -> Found:
    """Return what the request concerns. Raises `OperationRefused`."""
    if request.approved is not None:
        if context.approved_by is None:
            raise OperationRefused("event.erase takes approved only from a request that was approved")
        return request.approved
    named = [request.keys is not None, request.object is not None, request.pointer is not None]
    if sum(named) != 1 or (request.pointer is None) != (request.value is None):
        raise OperationRefused("event.erase needs keys, or object, or pointer with value; one of the three")
    source_id = None if request.source is None else await _source_id(context, request.source)
    if request.keys is not None:
        return await _of_keys(context, request.keys, source_id)
    if request.object is not None:
        return await _of_object(context, request.object, source_id)
    return await _of_value(context, request.pointer or "", request.value or "", source_id)


async def approvable(context: OperationContext, request: EraseEvents) -> tuple[int, Mapping[str, object]]:
    """Return how much it concerns, and the request without the value: an approval keeps what was found."""
    found = await find(context, request)
    kept = EraseEvents(source=request.source, approved=found, reason=request.reason, note=request.note)
    return found.count, msgspec.to_builtins(kept)


async def _source_id(context: OperationContext, name: str) -> int:
    row = await context.read(ledger_sources.source_named, name)
    if row is None:
        raise OperationRefused(f"source {name!r} is not in the ledger; `gapless source list` shows all sources")
    source_id: int = row["id"]
    return source_id


def _criterion(context: OperationContext, what: str, *parts: str) -> str:
    """Return the criterion for the audit log: a keyed digest in the place of a value, or none without a key."""
    digest = context.runtime.audit_key.pseudonym_of(what, *parts)
    return f"{what} {digest or '(no digest: the audit log has no key)'}"


async def _of_keys(context: OperationContext, keys: tuple[str, ...], source_id: int | None) -> Found:
    events = await context.read(erasure.of_keys, keys=keys, source_id=source_id)
    each = [one for found in events.values() for one in found]
    wanted = set(keys)
    refused = [one.id async for one in _walk(context, erasure.refused, source_id) if wanted.intersection(one.claims)]
    return Found(
        criterion=_criterion(context, "keys", *sorted(keys)),
        events=tuple(sorted(seq for seq, is_erased in each if not is_erased)),
        refused=tuple(refused),
        unknown=len(wanted - events.keys()),
        before=sum(is_erased for _, is_erased in each),
    )


async def _of_object(context: OperationContext, name: str, source_id: int | None) -> Found:
    events: list[int] = []
    after: int | None = 0
    while after is not None:
        found, after = await context.read(erasure.of_object, object_key=name, source_id=source_id, after=after)
        events += found
    return Found(criterion=_criterion(context, "object", name), events=tuple(events))


@dataclass(slots=True)
class _Search:
    """Looks for one value, and counts what it could not look into."""

    pointer: str
    value: str
    unopened: int = field(default=0)

    def at_pointer(self, content: Content) -> bool:
        """Return True if the value is where the pointer leads."""
        return any(each == self.value for each in self._texts(content, self.pointer))

    def anywhere(self, content: Content) -> bool:
        """Return True if the value is anywhere: of what could not be verified or read, the form is not known."""
        return any(each == self.value for each in self._texts(content, None))

    def _texts(self, content: Content, pointer: str | None) -> Iterator[str]:
        try:
            value = msgspec.json.decode(content.body or b"")
        except (ValueError, RecursionError):
            self.unopened += 1
            return
        yield from masking.texts_in(value) if pointer is None else masking.texts_at(value, pointer)


async def _of_value(context: OperationContext, pointer: str, value: str, source_id: int | None) -> Found:
    search = _Search(pointer, value)
    places = (
        (erasure.payloads, search.at_pointer),
        (erasure.refused, search.anywhere),
        (erasure.unreadable_rows, search.anywhere),
    )
    events, refused, rows = [
        tuple([one.id async for one in _walk(context, look, source_id) if is_wanted(one)]) for look, is_wanted in places
    ]
    criterion = _criterion(context, f"pointer {pointer}", value)
    return Found(criterion=criterion, events=events, refused=refused, rows=rows, unopened=search.unopened)


async def _walk(context: OperationContext, look: Callable[..., Looked], source_id: int | None) -> Any:
    after: int | None = 0
    while after is not None:
        looked = await context.read(look, source_id=source_id, after=after)
        for each in looked.found:
            yield each
        after = looked.after
