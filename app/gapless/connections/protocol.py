"""uvicorn's HTTP/1.1 protocol with limits: what a stranger sends is parsed, held and waited for only so far.

The parser (llhttp) holds a header until it is complete and tells nothing meanwhile. So it is fed in slices, and the
bytes that it takes without telling anything are counted.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gapless.connections.register import (
    ANSWER,
    AWAITED,
    BODY,
    CLOSING,
    FRESH,
    HEAD,
    IDLE,
    CloseReason,
    Connections,
)

SLICE: Final = 32 * 1024
"""Bytes that are parsed at once."""
BODY_HEADERS: Final = frozenset((b"content-length", b"transfer-encoding"))
LINE: Final = 4
"""Bytes of a header line beside its name and value."""
ANSWERS: Final = {
    CloseReason.HEAD_LATE: HTTPStatus.REQUEST_TIMEOUT,
    CloseReason.BODY_LATE: HTTPStatus.REQUEST_TIMEOUT,
    CloseReason.HEADERS_TOO_LARGE: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    CloseReason.URL_TOO_LONG: HTTPStatus.REQUEST_URI_TOO_LONG,
    CloseReason.PIPELINED: HTTPStatus.BAD_REQUEST,
    CloseReason.MALFORMED: HTTPStatus.BAD_REQUEST,
}
"""The status by reason; a connection that is closed for another reason gets no answer."""
RETRY_AFTER_S: Final = b"5"
_BASE: Final = HttpToolsProtocol


class _Refused(Exception):
    """Stops the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    scope: Any
    """The newest request; None before the first."""
    cycle: Any
    """The newest request whose head is whole, answered or not; None before the first."""
    phase = FRESH
    since = 0.0
    address: str | None = None

    def __init__(self, connections: Connections, **parts: Any) -> None:
        super().__init__(**parts)
        self._register = connections
        self._limits = connections.limits
        self._own_app = self.app
        self._is_proxy = False
        self._taken: object = None
        """The request whose head came in the slice before."""
        self._head_bytes = 0
        """Bytes of the slices in which that head came."""
        self._untold = 0
        """Bytes that the parser took since it told anything of a body."""
        self._is_whole = True
        """The newest request whose head is whole has its body too, or there was none yet."""
        self._body_began = False
        self._fault = CloseReason.MALFORMED
        self._is_over = False
        """Nothing more is read."""
        self._stalled_at: float | None = None
        """Since when the peer takes nothing more of our answer."""

    # --- the transport -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Count the connection, or end it if there are too many."""
        super().connection_made(transport)
        host = self.client[0] if self.client else None
        if self._register.admit(self, host):
            self._is_proxy = self._register.is_proxy(host)
        else:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._register.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, slice by slice, and note what the connection waits for then."""
        if self._is_over:
            return
        if len(data) <= SLICE:
            if not self._feed(data):
                return
        else:
            whole = memoryview(data)
            for at in range(0, len(data), SLICE):
                if not self._feed(whole[at : at + SLICE]):
                    return
        self._settle()

    def pause_writing(self) -> None:
        """Note that the peer takes nothing more of our answer."""
        super().pause_writing()
        self._stalled_at = self._register.time()

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        self._stalled_at = None

    def _feed(self, data: bytes | memoryview) -> bool:
        """Parse; return False if nothing more is read."""
        self._untold += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.refuse(self._fault)
            return False
        except httptools.HttpParserUpgrade:  # what follows it is not HTTP
            if self._should_upgrade():
                self._upgrade()
            else:  # answered as plain HTTP
                self._settle()
            return False
        cycle = self.cycle
        if self._is_whole and cycle is not None and cycle.scope is self.scope:
            return True
        return self._takes_part(len(data))

    # --- the parser --------------------------------------------------------------------------------------------------

    def _takes_part(self, size: int) -> bool:
        """Count a slice after which a request is not whole. Return False, and refuse it, if it is too large."""
        if self.scope is None or not self._is_whole:
            fits = self._untold <= self._limits.head_bytes
        else:
            fits = self._takes_head(size)
        if not fits:
            self.refuse(self._too_large())
        return fits

    def _takes_head(self, size: int) -> bool:
        """Count a slice in which a head came, and did not end.

        Of the first slice a part may belong to the request before; so the exact size is told when the head is whole.
        """
        self._head_bytes = self._head_bytes + size if self._taken is self.scope else size
        self._taken = self.scope
        return self._head_bytes <= self._limits.head_bytes + SLICE and len(self.headers) <= self._limits.headers

    def _too_large(self) -> CloseReason:
        is_url = self._is_whole and self.scope is not None and len(self.url) > self._limits.head_bytes
        return CloseReason.URL_TOO_LONG if is_url else CloseReason.HEADERS_TOO_LARGE

    def on_headers_complete(self) -> None:
        """The head is whole: the request starts, if it is within the limits."""
        headers, limits = self.headers, self._limits
        if len(headers) > limits.headers:
            self._stop(CloseReason.HEADERS_TOO_LARGE)
        if self._untold > limits.head_bytes or self._head_bytes:
            self._measure_head()
        if len(self.pipeline) >= limits.pipelined:
            self._stop(CloseReason.PIPELINED)
        if self._is_proxy:
            named = self._register.named_by(self.client[0] if self.client else None, headers)
            self.app = self._own_app if self._register.attribute(self, named) else _too_many
        _BASE.on_headers_complete(self)
        self._untold = self._head_bytes = 0
        self._is_whole = self._body_began = False
        self.headers = []  # of the trailers: they are counted and thrown away, because nobody has signed them

    def _measure_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + LINE for name, value in self.headers)
        if size > self._limits.head_bytes:
            self._stop(self._too_large())

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._untold = 0
        self._body_began = True
        _BASE.on_body(self, body)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._untold = 0

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._untold = 0
        self._is_whole = True
        _BASE.on_message_complete(self)

    def _get_upgrade(self) -> bytes | None:
        """Return what a whole request wants to go on with, if a listener of WebSockets can take it."""
        headers = self.scope["headers"]
        connection = b",".join(value.lower() for name, value in headers if name == b"connection")
        tokens = {token.strip() for token in connection.split(b",")}
        is_plain = self.scope["method"] != "GET" or self.scope["http_version"] != "1.1"
        has_body = any(name in BODY_HEADERS for name, _ in headers)
        if b"upgrade" not in tokens or is_plain or has_body or self.app is _too_many:
            return None
        return next((value.lower() for name, value in headers if name == b"upgrade"), None)

    def _upgrade(self) -> None:
        """Go on as a WebSocket, unless an earlier request of this connection is not answered yet."""
        if self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            self.refuse(CloseReason.PIPELINED)
            return
        self._is_over = True
        self.handle_websocket_upgrade()
        protocol: Any = self.transport.get_protocol()
        self._register.hand_over(self, protocol)

    def _stop(self, reason: CloseReason) -> None:
        self._fault = reason
        raise _Refused

    # --- the answer --------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Go on with the next request. The time until it comes is watched by the register, without a timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._register.enter(self, CLOSING)
            return
        if self._is_over and not self.pipeline:
            self._half_close()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        if not self._is_over:
            self._settle()

    def _settle(self) -> None:
        """Note what the connection waits for now."""
        cycle = self.cycle
        if self.pipeline:
            phase = ANSWER
        elif not self._is_whole:
            phase = BODY if self._body_began else AWAITED
        elif cycle is not None and cycle.scope is self.scope:
            phase = IDLE if cycle.response_complete else ANSWER
        else:
            phase = FRESH if self.scope is None else HEAD
        if phase is not self.phase:
            self._register.enter(self, phase)
            if self._is_proxy and phase is IDLE:
                self._register.attribute(self, None)

    # --- the end -----------------------------------------------------------------------------------------------------

    def refuse(self, reason: CloseReason) -> None:
        """Take nothing more, and close: after an error, or after the answers to the requests that came whole before."""
        self._is_over = True
        self._register.count(reason)
        if self._answers_another():
            self._register.enter(self, ANSWER)
            return
        cycle = self.cycle
        may_answer = self._is_whole or not cycle.response_started
        if not self._is_whole and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if reason in ANSWERS and may_answer:
            self._write_error(ANSWERS[reason])
            self._half_close()
        else:
            self._close()

    def _answers_another(self) -> bool:
        """Return True if a request that came whole before the broken one is not answered yet."""
        if not self._is_whole:
            if not self.pipeline:
                return False
            self.cycle.disconnected = True  # it is queued: it will be told so, and is not answered
            return True
        cycle = self.cycle
        return bool(self.pipeline) or (cycle is not None and not cycle.response_complete)

    def _write_error(self, status: HTTPStatus) -> None:
        text = f"{status.phrase}\n".encode()
        content = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            content += [name, b": ", value, b"\r\n"]
        content += [
            b"content-type: text/plain; charset=utf-8\r\n",
            b"content-length: %d\r\n" % len(text),
            b"connection: close\r\n\r\n",
            text,
        ]
        self.transport.write(b"".join(content))

    def _half_close(self) -> None:
        """Send no more, and throw away what still comes: who is cut while sending does not see the answer."""
        self._is_over = True
        self._register.enter(self, CLOSING)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _close(self) -> None:
        self._is_over = True
        self._register.enter(self, CLOSING)
        self.transport.close()

    def drop(self) -> None:
        """Close at once; one that is idle gets no reset, because nothing is lost."""
        self._is_over = True
        if self.phase is IDLE:
            self.transport.close()
        else:
            self.transport.abort()

    def review(self, now: float) -> None:
        """End the connection if its peer does not read, or if what it waits for has ended without an answer."""
        if self._stalled_at is not None and now - self._stalled_at > self._limits.unread_within_s:
            self._register.count(CloseReason.UNREAD)
            self._register.leave(self)
            self.transport.abort()
        elif self.transport.is_closing():
            self._register.enter(self, CLOSING)
        elif self._is_over and not self.pipeline and (self.cycle.response_complete or self.cycle.disconnected):
            self._half_close()


async def _too_many(_scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer a request of a client that has too many under way through a proxy."""
    headers = [(b"content-length", b"0"), (b"retry-after", RETRY_AFTER_S), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": HTTPStatus.SERVICE_UNAVAILABLE, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
