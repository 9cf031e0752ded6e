"""`/api/v1/quarantine`: refused webhooks, why, and what one of them was."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from gapless import masking
from gapless.console.api import cursors
from gapless.console.api.passes import Number
from gapless.console.api.shared import (
    PAGE,
    After,
    AnyRequest,
    OfSource,
    chosen_sources,
    reading,
    refuse,
    time,
)
from gapless.console.routing import principal_of
from gapless.domain import Source, from_us
from gapless.ledger import Connection, quarantine, sources
from gapless.ledger.newest import NewestPage
from gapless.ledger.quarantine import QuarantinedWebhook, QuarantineEntry
from gapless.operations.context import OperationContext
from gapless.receive.diagnosis import diagnose
from gapless.receive.quarantine import request_of
from gapless.sealing import CannotOpen

NOUN = "quarantine"


class QuarantineItem(Struct, frozen=True, kw_only=True):
    """A refused webhook."""

    id: int
    source: str
    received: datetime
    reason: str
    detail: str
    sender: str | None
    """The address that it came from."""
    claims: list[str]
    """The keys of the events that it claims to carry."""
    size: int
    released: datetime | None
    purged: datetime | None
    """When its content was deleted."""
    is_whole: bool
    """It can be released: its content is there, and it was not released before."""
    likely_cause: str | None
    """What is probably behind it; null: nothing was found, or it is not whole."""


class QuarantinePage(Struct, frozen=True, kw_only=True):
    """A page of refused webhooks, the newest first."""

    items: list[QuarantineItem]
    next: str | None
    complete: bool
    """false: not everything was looked at; there may be more behind `next`."""


class QuarantineDetail(Struct, frozen=True, kw_only=True):
    """A refused webhook with its content. Secrets that it carried are digests, masked values are hidden."""

    item: QuarantineItem
    is_open: bool
    """false: its content is sealed with a key that is not there."""
    headers: list[tuple[str, str]]
    json: Any
    """The body as JSON; null if it is none, or if it is `null`."""
    text: str | None
    """What is no JSON, as text; null if it is JSON."""


def quarantine_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/quarantine", tag="quarantine")
    async def list_quarantine(
        request: AnyRequest,
        *,
        source: OfSource = None,
        reason: Annotated[str | None, QueryParameter(max_length=40, description="Such as `signature`.")] = None,
        after: After = None,
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="Most entries of the page.")] = PAGE,
    ) -> QuarantinePage:
        """List refused webhooks with what is probably behind each."""
        return await find_refused(request, context, source, reason, after, limit)

    @reading("/quarantine/{number:int}", tag="quarantine")
    async def show_quarantined(request: AnyRequest, number: Number) -> QuarantineDetail:
        """Show a refused webhook with its content."""
        return await read_refused(request, context, number)

    return [list_quarantine, show_quarantined]


async def find_refused(
    request: AnyRequest,
    context: OperationContext,
    source: str | None,
    reason: str | None,
    after: str | None,
    limit: int,
) -> QuarantinePage:
    """Return a page of refused webhooks. Raises `HTTPException` and `StoreError`."""
    page, names, contents = await context.read(
        _page,
        sources_=chosen_sources(request, source),
        reason=None if reason is None else reason.replace("\0", ""),
        after=cursors.decode(NOUN, after),
        limit=limit,
    )
    configured = {each.id: each for each in context.sources}
    items = [_item(each, names, _cause(configured, each, contents.get(each.id))) for each in page.rows]
    return QuarantinePage(items=items, next=cursors.encode(NOUN, page.after), complete=page.is_full)


async def read_refused(request: AnyRequest, context: OperationContext, number: int) -> QuarantineDetail:
    """Return one refused webhook. Raises `HTTPException` (404) and `StoreError`."""
    found = await context.read(_one, number=number) if 0 <= number <= cursors.GREATEST else None
    if found is None or not principal_of(request).may_touch(found[1]):
        refuse(f"there is no webhook {number} in the quarantine", HTTPStatus.NOT_FOUND)
    entry, name, webhook = found
    mask = context.sources[name].mask if name in context.sources else ()
    configured = {each.id: each for each in context.sources}
    value, text = masking.readable(masking.shown(webhook.body, mask)) if webhook and webhook.body else (None, None)
    return QuarantineDetail(
        item=_item(entry, {entry.source_id: name}, _cause(configured, entry, webhook)),
        is_open=webhook is not None,
        headers=msgspec.json.decode(webhook.headers if webhook else "[]", type=list[tuple[str, str]]),
        json=value,
        text=text,
    )


def is_whole(entry: QuarantineEntry) -> bool:
    """Return True if the webhook can be released."""
    return entry.released_us is None and entry.purged_us is None and entry.reason not in quarantine.PARTIAL


def _page(
    connection: Connection,
    sources_: frozenset[str] | None,
    reason: str | None,
    after: tuple[int, ...] | None,
    limit: int,
) -> tuple[NewestPage[QuarantineEntry], Mapping[int, str], Mapping[int, QuarantinedWebhook]]:
    names = sources.names(connection)
    ids = None if sources_ is None else [each for each, name in names.items() if name in sources_]
    page = quarantine.page(connection, source_ids=ids, reason=reason, after=after, limit=limit)
    found = {each.id: _content(connection, each.id) for each in page.rows if is_whole(each)}
    return page, names, {each: content for each, content in found.items() if content is not None}


def _content(connection: Connection, number: int) -> QuarantinedWebhook | None:
    """Return a webhook with its content; None: there is none, or no key here opens it."""
    with suppress(CannotOpen):
        found = quarantine.content(connection, number)
        return None if found is None else found[0]
    return None


def _one(connection: Connection, number: int) -> tuple[QuarantineEntry, str, QuarantinedWebhook | None] | None:
    entry = quarantine.entry(connection, number)
    if entry is None:
        return None
    return entry, sources.names(connection).get(entry.source_id, "?"), _content(connection, number)


def _cause(configured: Mapping[int, Source], entry: QuarantineEntry, webhook: QuarantinedWebhook | None) -> str | None:
    source = configured.get(entry.source_id)
    if source is None or webhook is None or not is_whole(entry):
        return None
    providers = {each.name: each.provider for each in configured.values()}
    request = request_of(webhook, providers.values(), source.digest_key)
    return diagnose(providers, source.name, request, from_us(entry.received_us)) or None


def _item(entry: QuarantineEntry, names: Mapping[int, str], cause: str | None) -> QuarantineItem:
    return QuarantineItem(
        id=entry.id,
        source=names.get(entry.source_id, "?"),
        received=from_us(entry.received_us),
        reason=entry.reason,
        detail=entry.detail,
        sender=entry.sender or None,
        claims=list(entry.claims),
        size=entry.size,
        released=time(entry.released_us),
        purged=time(entry.purged_us),
        is_whole=is_whole(entry),
        likely_cause=cause,
    )
