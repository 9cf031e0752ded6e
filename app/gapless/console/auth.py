"""The access rules of the private listener. Pure.

If the listener is bound to loopback, everybody on the machine may read. The `Host` header must name a loopback address,
because a web page can make its own name resolve to 127.0.0.1; and no header may tell of a proxy, because that would let
in everybody who reaches the proxy. If it is bound to other addresses, everything except the probes needs a token;
metrics need one only if a metrics token is configured. Requests that change something always need a token.

A token is the one that each process generates for its own user, a configured one, or a named one of the ledger. It
opens what its role opens.
"""

import base64
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final
from urllib.parse import urlsplit

from gapless.operations.principals import AccessRole, Principal
from gapless.settings import is_loopback
from gapless_reconcilers.kit.contract import Secret

TokenNow = Callable[[], Secret | None]
"""Returns the currently configured token; None: no token. Raises `SecretUnavailable`."""


class Area(StrEnum):
    """The kind of a request."""

    PROBE = "probe"
    METRICS = "metrics"
    READ = "read"
    WRITE = "write"
    RECEIPTS = "receipts"
    """A handler reports what it has processed."""
    STREAM = "stream"
    """The live stream. A page of another site could open it from a browser, so it is asked where it comes from."""


OPENS: Final[Mapping[AccessRole, frozenset[Area]]] = {
    AccessRole.OWNER: frozenset(Area),
    AccessRole.OPERATOR: frozenset(Area),
    AccessRole.VIEWER: frozenset((Area.PROBE, Area.METRICS, Area.READ, Area.STREAM)),
    AccessRole.METRICS: frozenset((Area.PROBE, Area.METRICS)),
    AccessRole.CONSUMER: frozenset((Area.PROBE, Area.RECEIPTS)),
}
"""The areas that each role opens. Metrics are those of all sources, so a limited token does not open them."""
PRIVATE_TOKEN: Final = "private.token"  # noqa: S105 - the name of a setting
"""The name of whoever has the configured token."""
OF_LEDGER: Final = "ledger:"
"""The beginning of the name by which a session knows a token of the ledger; configured ones have none."""
PROXY_HEADERS: Final = frozenset(("forwarded", "via", "x-real-ip"))
PROXY_PREFIX: Final = "x-forwarded-"
"""Headers that proxies add."""


class AccessDecision(Enum):
    """The decision on a request, with the HTTP status and what to do about a refusal."""

    ALLOWED = (200, "")
    TOKEN_REQUIRED = (401, "send the token: Authorization: Bearer <token>, or as the password of Basic")
    FOREIGN_HOST = (403, "the Host header names no loopback address; call 127.0.0.1 or localhost, or send the token")
    FOREIGN_ORIGIN = (403, "the request comes from another site")
    NOT_GRANTED = (403, "the role of this token does not open this, or the token is limited to some sources")
    THROUGH_PROXY = (
        403,
        (
            "the request came through a proxy, and whoever reaches that would get in without a token: set "
            "private.token_env or private.token_file (for /metrics private.metrics_token_env) and let callers send "
            "the token, or let the proxy not lead here"
        ),
    )

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """What the caller can do about a refusal."""
        return self.value[1]


def no_token() -> None:
    """No token is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of one listener. Each process generates its own `run_token`."""

    bind: str
    run_token: Secret
    token: TokenNow = no_token
    metrics_token: TokenNow = no_token
    consumer_token: TokenNow = no_token
    owner_only: bool = False
    """Only the token of this process opens anything: the listener is for commands on this machine."""

    def __post_init__(self) -> None:
        if not is_loopback(self.bind) and self.token() is None:
            raise ValueError(f"private.host is {self.bind!r}, which others can reach: set private.token_env")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The headers of a request that matter for access; None: the header is missing."""

    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    authorization: str | None = None
    proxied: bool = False
    """A header tells that the request came through a proxy."""


def tells_of_proxy(names: Iterable[str]) -> bool:
    """Return True if one of these names of headers, in small letters, is one that proxies add."""
    return any(name in PROXY_HEADERS or name.startswith(PROXY_PREFIX) for name in names)


def decide_access(access: Access, area: Area, caller: Caller, known: Principal | None = None) -> AccessDecision:
    """Decide on a request of `caller` to `area`. Raises `SecretUnavailable`.

    `known`: the principal of the token that it presents, if that was found in the ledger.
    """
    changes = area in (Area.WRITE, Area.RECEIPTS)
    if area is Area.PROBE:
        return AccessDecision.ALLOWED
    if (changes or area is Area.STREAM) and is_foreign(caller):
        return AccessDecision.FOREIGN_ORIGIN
    known = known or identify(access, area, presented_token(caller.authorization))
    if known is not None:
        opened = area in OPENS[known.role] and not (area is Area.METRICS and known.is_limited)
        return AccessDecision.ALLOWED if opened else AccessDecision.NOT_GRANTED
    needed = access.metrics_token() if area is Area.METRICS else access.token()
    if changes or needed is not None or access.owner_only:
        return AccessDecision.TOKEN_REQUIRED
    return _without_token(access, area, caller)


def _without_token(access: Access, area: Area, caller: Caller) -> AccessDecision:
    """Decide where the area has no token: on loopback everybody on the machine may read."""
    if not is_loopback(access.bind):
        return AccessDecision.ALLOWED if area is Area.METRICS else AccessDecision.TOKEN_REQUIRED
    if not is_loopback(host_name(caller.host)):
        return AccessDecision.FOREIGN_HOST
    return AccessDecision.THROUGH_PROXY if caller.proxied else AccessDecision.ALLOWED


def is_owner(access: Access, presented: bytes | None) -> bool:
    """Return True if that is the token that this process has generated for its own user."""
    return _matches(presented, access.run_token)


def identify(access: Access, area: Area, presented: bytes | None) -> Principal | None:
    """Return who presents a token that is configured, or that of this process; None: it is neither.

    The tokens for metrics and for handlers are looked at only where they open something. Raises `SecretUnavailable`.
    """
    if not presented:
        return None
    if is_owner(access, presented):
        return Principal(name=AccessRole.OWNER.value, role=AccessRole.OWNER)
    if access.owner_only:
        return None
    configured = [(PRIVATE_TOKEN, AccessRole.OPERATOR, access.token)]
    if area is Area.METRICS:
        configured.append(("private.metrics_token", AccessRole.METRICS, access.metrics_token))
    if area is Area.RECEIPTS:
        configured.append(("private.consumer_token", AccessRole.CONSUMER, access.consumer_token))
    matches = [Principal(name=name, role=role) for name, role, token in configured if _matches(presented, token())]
    return matches[0] if matches else None


def holder_of(access: Access, name: str, proves: Callable[[str], bool]) -> Principal | None:
    """Return who has the configured token of that name, or that of this process, if its digest `proves` so.

    None: there is no such token any more, or it is another one by now. Raises `SecretUnavailable`.
    """
    if name == AccessRole.OWNER.value:
        token, role = access.run_token, AccessRole.OWNER
    elif name == PRIVATE_TOKEN and not access.owner_only and (configured := access.token()) is not None:
        token, role = configured, AccessRole.OPERATOR
    else:
        return None
    return Principal(name=name, role=role) if proves(token.reveal()) else None


def host_name(header: str | None) -> str:
    """Return the name or address in a `Host` header, without the port; empty if it is missing or malformed."""
    try:
        return urlsplit(f"//{header or ''}").hostname or ""
    except ValueError:
        return ""


def is_foreign(caller: Caller) -> bool:
    """Return True if a browser sent the request for a page of another site."""
    if caller.fetch_site not in (None, "same-origin", "none"):
        return True
    return caller.origin is not None and caller.origin.partition("://")[2] != caller.host


def presented_token(authorization: str | None) -> bytes | None:
    """Return the token in an `Authorization` header; None if it has none."""
    scheme, _, value = (authorization or "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value.encode()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except ValueError:
        return None


def _matches(presented: bytes | None, secret: Secret | None) -> bool:
    """Compare in constant time, so that the duration reveals nothing."""
    return bool(presented) and secret is not None and hmac.compare_digest(presented or b"", secret.reveal().encode())
