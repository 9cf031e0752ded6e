"""What the kinds for brokers and databases share: TLS, names filled in per event, and a connection that heals.

No address is refused here: a broker is the operator's own, and nearly always private. Nobody but the operator names it.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from typing import Annotated, Generic, TypeAlias, TypeVar

import certifi
from msgspec import Meta

from gapless.destinations.contract import (
    Delivery,
    DestinationInvalid,
    DestinationOptions,
    Failed,
    FailureReason,
    SecretReader,
)

C = TypeVar("C")
CONNECT_TIMEOUT_S = 5
"""Timeout for a new connection; the whole attempt has the destination's timeout."""
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = ("source", "stream", "type", "mode")
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
"""Characters that some broker does not take in the name of a subject, a topic or a routing key."""
HostAndPort: TypeAlias = Annotated[str, Meta(pattern=r"\A(\[[0-9A-Fa-f:.]+\]|[^\s/@:\[\]]+):\d{1,5}\Z")]


class BrokerOptions(DestinationOptions, frozen=True, kw_only=True):
    """The keys that every kind for a broker has."""

    user: str = ""
    """The user name. Empty: the broker asks for none."""
    password: SecretReader | None = None
    """The password of `user`, read for each new connection."""
    ca: str = ""
    """A file with the certificates of the authorities that sign the broker's. Empty: the public authorities."""
    certificate: str = ""
    """A file with our certificate, if the broker wants one."""
    certificate_key: str = ""
    """The file with its key. Empty: `certificate` has the key too."""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        if bool(self.user) != (self.password is not None):
            yield "options user and password belong together; set both, with password_env or password_file, or neither"
        if self.certificate_key and not self.certificate:
            yield "option certificate is missing; certificate_key is the key of a certificate"


def require(package: str, kind: str, name: str) -> None:
    """Raise `DestinationInvalid` if the client of this kind is not installed. `name`: of the destination."""
    if find_spec(package) is None:
        raise DestinationInvalid(
            f'destination "{name}": type "{kind}" needs the package {package}, which is not installed; '
            f"run: pip install 'gapless[{kind}]'"
        )


def tls_context(name: str, options: BrokerOptions) -> ssl.SSLContext:
    """Return the context of TLS connections. Raises `DestinationInvalid` if a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=options.ca or certifi.where())
        if options.certificate:
            context.load_cert_chain(options.certificate, options.certificate_key or None)
    except (OSError, ssl.SSLError) as error:
        message = f"ca, certificate or certificate_key cannot be used: {error}"
        raise DestinationInvalid(f'destination "{name}": {message}; name PEM files that this user can read') from error
    return context


def template_problems(option: str, text: str) -> Iterator[str]:
    """Yield a sentence for each placeholder of `text` that means nothing."""
    named = PLACEHOLDER.findall(text)
    for each in named:
        if each not in PLACEHOLDERS:
            wanted = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            yield f"option {option} has the placeholder {{{each}}}; wanted one of {wanted}"
    if not named and ("{" in text or "}" in text):
        yield f"option {option} has a single brace; wanted placeholders such as {{type}}"


def filled(template: str, delivery: Delivery) -> str:
    """Return the name that `template` gives for this event.

    In a value, a character that no broker takes becomes `_`, and so does an empty part between dots.
    """
    mode = {None: "live", True: "live", False: "test"}[delivery.livemode]
    values = {"source": delivery.source, "stream": delivery.stream, "type": delivery.type, "mode": mode}
    return PLACEHOLDER.sub(lambda found: _part(values[found[1]]), template)


def _part(value: str) -> str:
    return ".".join(part or "_" for part in UNSAFE.sub("_", value).split("."))


def too_large(size: int, limit: int, what: str) -> Failed:
    """Return the failure of a message that the broker never takes."""
    detail = f"the message has {size} bytes; {what} takes at most {limit}"
    return Failed(reason=FailureReason.REJECTED, detail=detail, permanent=True)


def described(error: BaseException) -> str:
    """Return an error as text: its type, and what it says."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


class KeptConnection(Generic[C]):
    """A connection that is made when it is first wanted, and made anew after it was lost.

    Those who want it at the same time share one, and the error if there is none. One who is cancelled meanwhile does
    not disturb the others. Use it in one event loop only.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        is_open: Callable[[C], bool],
        close: Callable[[C], Awaitable[None]],
    ) -> None:
        self._connect = connect
        self._is_open = is_open
        self._close = close
        self._connection: C | None = None
        self._connecting: asyncio.Task[C] | None = None

    @property
    def kept(self) -> C | None:
        """The connection, open or not; None: there is none."""
        return self._connection

    async def get(self) -> C:
        """Return the open connection. Raises what `connect` raises."""
        if (kept := self._connection) is not None and self._is_open(kept):
            return kept
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._made())
            self._connecting.add_done_callback(self._ended)
        return await asyncio.shield(self._connecting)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        await self._drop()

    async def _made(self) -> C:
        await self._drop()
        self._connection = await self._connect()
        return self._connection

    def _ended(self, connecting: "asyncio.Task[C]") -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # perhaps nobody waits for it any more

    async def _drop(self) -> None:
        dropped, self._connection = self._connection, None
        if dropped is not None:
            await self._close(dropped)
