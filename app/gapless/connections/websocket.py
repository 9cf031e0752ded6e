"""uvicorn's WebSocket protocol with limits, for peers that listen and have next to nothing to say.

A connection comes here from `protocol`, which has read its head. It stays in the register, so that it counts and ends
as all others do.
"""

import os
import socket
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gapless.connections.register import ANSWER, CLOSING, CloseReason, Connections
from gapless.token_bucket import TokenBucket

MESSAGE_BYTES: Final = 1024
"""Most bytes of one message of the peer, over all its frames. More ends the connection with 1009."""
FRAMES_AT_ONCE: Final = 32
FRAMES_PER_SECOND: Final = 2.0
"""Frames of the peer, pings among them: each costs an answer. More ends the connection with 1008."""
TOO_MANY: Final = (1008, "too many frames, or parts of a message: nothing is expected from you")
KERNEL_BYTES: Final = 128 << 10
"""Bytes on their way to one peer; Linux doubles it."""
WEBSOCKETS: Final = {
    "ws_max_size": MESSAGE_BYTES,
    "ws_per_message_deflate": False,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
}
"""Options of uvicorn. No compression, because it holds memory for each connection."""


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One connection. While it is open it waits for us, so it never gives way to a newcomer."""

    phase = ANSWER
    since = 0.0
    address: str | None = None

    def __init__(self, connections: Connections, **parts: Any) -> None:
        super().__init__(**parts)
        self._register = connections
        self._frames = TokenBucket(burst=FRAMES_AT_ONCE, per_second=FRAMES_PER_SECOND)
        self._stalled_at: float | None = None
        """Since when the peer takes nothing more of what we send."""
        self.close_timeout = connections.limits.close_within_s

    # --- the transport -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Bound what the kernel holds of what we send, which may be megabytes for each peer that does not read."""
        super().connection_made(transport)
        shown = transport.get_extra_info("socket")
        if shown is not None:
            with socket.socket(fileno=os.dup(shown.fileno())) as own:  # uvloop shows a socket that cannot be set
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._register.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the peer takes nothing more of what we send."""
        super().pause_writing()
        self._stalled_at = self._register.time()

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        self._stalled_at = None

    # --- what the peer sends -----------------------------------------------------------------------------------------

    def handle_events(self) -> None:
        """Take the frames that came whole, unless they are too many."""
        if self.conn.handshake_exc is not None and not self.handshake_initiated:  # uvicorn would never answer
            self.handle_parser_exception()
            return
        if self.close_sent or not self.handshake_initiated:
            super().handle_events()
            return
        frames: list[Any] = self.conn.events_received()
        are_whole = all(frame.fin for frame in frames)
        if are_whole and self._frames.take(int(self._register.time() * 1_000_000), len(frames)):
            self.conn.events += frames
            super().handle_events()
        else:
            self._register.count(CloseReason.MALFORMED)
            self.conn.fail(*TOO_MANY)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on as bytes: nobody reads it, so text that is none is no error to log."""
        self.curr_msg_data_type = "bytes"
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """End a connection whose peer does not keep to the protocol; one that is not open yet is answered 400."""
        if self.conn.close_sent is not None:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.queue.put_nowait({"type": "websocket.disconnect", "code": self.conn.close_sent.code, "reason": ""})
        elif not self.handshake_initiated:
            self.handshake_complete = True
            empty = b"content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[HTTPStatus.BAD_REQUEST] + empty)
        self.close_sent = True
        self.transport.close()

    # --- what we send ------------------------------------------------------------------------------------------------

    async def send(self, message: Any) -> None:
        """Send one message of the application.

        A close does not wait for a peer that does not read: it comes behind what was sent, or the connection ends.
        """
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)

    # --- the end -----------------------------------------------------------------------------------------------------

    def refuse(self, reason: CloseReason) -> None:
        """End it: nothing can be answered any more."""
        self._register.count(reason)
        self.drop()

    def drop(self) -> None:
        """End it at once."""
        self.transport.abort()

    def review(self, now: float) -> None:
        """End the connection if its peer does not read, or if it was closed and does not end."""
        if self._stalled_at is not None and now - self._stalled_at > self._register.limits.unread_within_s:
            self._register.count(CloseReason.UNREAD)
            self._register.leave(self)
            self.transport.abort()
        elif self.transport.is_closing():
            self._register.enter(self, CLOSING)
