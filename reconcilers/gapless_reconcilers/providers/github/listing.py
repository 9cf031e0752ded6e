"""The log of deliveries: its pages, one delivery with its payload, and the waits that GitHub requests."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import httpx
import msgspec

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import MissingEvent, RemoteEvent
from gapless_reconcilers.kit.decoders import ListedRows, decode_or_none, decode_response, read_rows, recordable
from gapless_reconcilers.kit.errors import UnexpectedShape
from gapless_reconcilers.kit.pagination import next_link
from gapless_reconcilers.providers.github.webhook import remote

SECONDARY: Final = timedelta(seconds=60)
"""Shortest wait after the secondary limit if GitHub names no time (REST rate limits page)."""


class _Delivery(msgspec.Struct, gc=False, kw_only=True):
    """One attempt, as the log shows it."""

    id: int
    guid: str
    delivered_at: Annotated[datetime, msgspec.Meta(tz=True)]
    event: str
    action: str | None = None
    repository_id: Any = None

    def remote(self, hook: str, payload: msgspec.Raw) -> RemoteEvent:
        at = self.delivered_at.astimezone(UTC)
        named = {"ref": str(self.id), "repository_id": self.repository_id}
        return remote(hook, self.guid, self.event, self.action, at, payload, **named)


class _Sent(msgspec.Struct, gc=False):
    payload: msgspec.Raw


class _Detail(_Delivery, gc=False, kw_only=True):
    request: _Sent


class _Refusal(msgspec.Struct, gc=False):
    message: str = ""


def read(response: httpx.Response, hook: str) -> ListedRows:
    """Return the attempts of a page; there may be several of one event."""
    rows = decode_response(response, list[msgspec.Raw])
    return read_rows("", rows, _Delivery, lambda each, row: each.remote(hook, row))


def next_cursor(request: httpx.Request, response: httpx.Response) -> str | None:
    """Return the cursor of the next page in `Link`. Its address is not used, so credentials go nowhere else."""
    named = next_link(response)
    if named is None:
        return None
    cursor: str | None = httpx.QueryParams(named.partition("#")[0].partition("?")[2]).get("cursor")
    if not cursor or cursor == request.url.params.get("cursor"):
        raise UnexpectedShape("Link", "a next page without a cursor, or with this page's own", "one that moves on")
    return cursor


def read_detail(missing: MissingEvent, response: httpx.Response, hook: str) -> RemoteEvent:
    """Return the event with its payload as GitHub stores it: parsed, not the bytes that were sent."""
    detail = decode_response(response, _Detail)
    event = recordable("", detail.remote, hook, detail.request.payload)
    if event.key != missing.key:
        raise UnexpectedShape("guid", f"of another event, {event.key[:80]!r}", missing.key)
    return event


def wait(response: httpx.Response, now: datetime) -> timedelta | None:
    """Return the wait that GitHub requests; None: the response is no rate limit."""
    named = statuses.parse_retry_after(response, now)
    if named is not None:
        return named
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        left = timedelta(seconds=min(int(reset[:12]) - now.timestamp(), statuses.LONGEST_WAIT.total_seconds()))
        return max(left, timedelta(seconds=1))
    refusal = decode_or_none(response.content, _Refusal)
    return SECONDARY if refusal and "secondary rate limit" in refusal.message.lower() else None
