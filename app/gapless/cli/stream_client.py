"""A listener of the live stream: it connects again by itself, and goes on with its cursor."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from gapless.domain import Via
from gapless.errors import Unavailable, UserError
from gapless_reconcilers.kit.contract import Secret

PATH: Final = "/api/v1/stream"
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0
OPEN_WITHIN_S: Final = 10.0
LARGEST_FRAME: Final = 64 << 20
FINAL_CODES: Final = frozenset((4401, 4410))
"""Close codes after which it is no use to connect again: the token, or the ledger, is another one."""


class StreamRefused(UserError):
    """The daemon does not let us in, or does not know our cursor. The message says why."""


class StreamUnavailable(Unavailable):
    """The daemon cannot be reached."""


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the stream."""

    cursor: str
    id: str
    key: str
    source: str
    stream: str
    type: str
    via: Via
    occurred_at: datetime
    recorded_at: datetime
    mode: str | None = None
    missed: bool | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")
    payload_base64: str | None = None
    payload_absent: str | None = None
    """Why there is no payload; None: there is one, if it was asked for."""
    headers: Mapping[str, str] = {}
    masked: bool = False
    again: bool = False
    """It comes once more: it was asked for, sent again by the vendor, or replayed."""

    @property
    def body(self) -> bytes | None:
        """Return the payload byte for byte; None: it was pruned, or never stored."""
        if self.payload_base64 is not None:
            return base64.b64decode(self.payload_base64)
        return None if self.payload_absent else bytes(self.payload)


class _Frame(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    cursor: str
    events: tuple[StreamEvent, ...] = ()


@dataclass(slots=True, kw_only=True)
class StreamClient:
    """The stream of the daemon at `url`, such as http://127.0.0.1:8001, from `query` on."""

    url: str
    token: Secret | None
    query: Mapping[str, str]
    keys: Sequence[str] = ()
    """Events that are sent first, once more."""
    say: Callable[[str], None]
    """Tells people what happens with the connection."""
    cursor: str | None = None
    """Where to go on; None: nothing came yet."""
    first_wait_s: float = FIRST_WAIT_S
    _has_been_open: bool = field(default=False, init=False)
    _again_is_over: bool = field(default=False, init=False)
    """All of `keys` have come."""

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Yield all events, for ever. The caller moves `cursor` over what it has handled.

        Raises `StreamRefused`, and `StreamUnavailable` if it could never connect.
        """
        wait_s = self.first_wait_s
        while True:
            try:
                async with self._connected() as opened:
                    wait_s = self.first_wait_s
                    async for event in self._read(opened):
                        yield event
            except InvalidStatus as error:
                why = self._refusal(error)
            except ConnectionClosed as error:
                why = _closing(error)
            except (OSError, TimeoutError, InvalidHandshake) as error:
                if not self._has_been_open:
                    raise StreamUnavailable(
                        f"no daemon answers at {self.url} ({error}); start `gapless serve`, or name another --url"
                    ) from error
                why = str(error) or type(error).__name__
            self.say(f"not connected ({why}); trying again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _connected(self) -> connect:
        scheme, netloc, path, _, _ = urlsplit(self.url)
        after = {} if self.cursor is None else {"after": self.cursor}
        keys = () if self._again_is_over else self.keys
        query = urlencode([*{**self.query, **after}.items(), *(("key", key) for key in keys)])
        uri = urlunsplit(("wss" if scheme == "https" else "ws", netloc, path.rstrip("/") + PATH, query, ""))
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token.reveal()}"}
        try:
            return connect(
                uri,
                additional_headers=headers,
                compression=None,
                max_size=LARGEST_FRAME,
                open_timeout=OPEN_WITHIN_S,
                proxy=None,
            )
        except (InvalidURI, ValueError) as error:
            raise StreamRefused(f"the address {self.url!r} cannot be read; wanted http://host:port") from error

    async def _read(self, opened: ClientConnection) -> AsyncIterator[StreamEvent]:
        async for content in opened:
            frame = msgspec.json.decode(content, type=_Frame)
            if frame.message == "hello":
                if self._has_been_open:
                    self.say("connected again")
                self._has_been_open = True
            self._again_is_over = self._again_is_over or frame.message in ("events", "heartbeat")
            for event in frame.events:
                is_again = frame.message == "again"
                yield msgspec.structs.replace(event, cursor=frame.cursor, again=True) if is_again else event
            self.cursor = frame.cursor
        raise ConnectionClosed(
            opened.protocol.close_rcvd, opened.protocol.close_sent
        )  # iteration ends without, at 1000

    def _refusal(self, error: InvalidStatus) -> str:
        """Return why the daemon has refused for now. Raises `StreamRefused` if it will do so again."""
        response = error.response
        try:
            said = str(json.loads(response.body or b"")["error"])
        except (ValueError, KeyError, TypeError):
            said = f"HTTP {response.status_code}"
        again = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        if again or response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            return said
        raise StreamRefused(f"{self.url} refuses the stream: {said}") from error


def _closing(error: ConnectionClosed) -> str:
    """Return why a connection has ended. Raises `StreamRefused` if another one would be of no use."""
    close = error.rcvd
    if close is None:
        return "the connection was lost"
    said = close.reason or f"close code {close.code}"
    if close.code in FINAL_CODES:
        raise StreamRefused(f"the daemon has ended the stream: {said}")
    return said
