"""The access rules of the private listener. Pure.

If the listener is bound to loopback, everybody on the machine may read. The `Host` header must name a loopback address,
because a web page can make its own name resolve to 127.0.0.1. If it is bound to other addresses, everything except the
probes needs a token; metrics need one only if a metrics token is configured. Requests that change something always
need a token: the one that each process generates for its own user, or the configured one.
"""

import base64
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from urllib.parse import urlsplit

from gapless.settings import is_loopback
from gapless_reconcilers.kit.contract import Secret

TokenNow = Callable[[], Secret | None]
"""Returns the currently configured token; None: no token."""


class Area(StrEnum):
    """The kind of a request."""

    PROBE = "probe"
    METRICS = "metrics"
    READ = "read"
    WRITE = "write"
    RECEIPTS = "receipts"
    """A handler reports what it has processed."""


class AccessDecision(Enum):
    """The decision on a request, with the HTTP status and what to do about a refusal."""

    ALLOWED = (200, "")
    TOKEN_REQUIRED = (401, "send the token: Authorization: Bearer <token>, or as the password of Basic")
    FOREIGN_HOST = (403, "the Host header names no loopback address; call 127.0.0.1 or localhost, or send the token")
    FOREIGN_ORIGIN = (403, "the request comes from another site")

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


def decide_access(access: Access, area: Area, caller: Caller) -> AccessDecision:
    """Decide on a request of `caller` to `area`."""
    if area is Area.PROBE:
        return AccessDecision.ALLOWED
    changes = area in (Area.WRITE, Area.RECEIPTS)
    if changes and _is_foreign(caller):
        return AccessDecision.FOREIGN_ORIGIN
    token, metrics_token = access.token(), access.metrics_token()
    of_area = {Area.METRICS: metrics_token, Area.RECEIPTS: access.consumer_token()}
    accepted = [access.run_token, token, of_area.get(area)]
    if _matches_any(_presented(caller.authorization), (secret for secret in accepted if secret is not None)):
        return AccessDecision.ALLOWED
    if changes or (metrics_token if area is Area.METRICS else token) is not None:
        return AccessDecision.TOKEN_REQUIRED
    if not is_loopback(access.bind):
        return AccessDecision.ALLOWED if area is Area.METRICS else AccessDecision.TOKEN_REQUIRED
    return AccessDecision.ALLOWED if is_loopback(host_name(caller.host)) else AccessDecision.FOREIGN_HOST


def host_name(header: str | None) -> str:
    """Return the name or address in a `Host` header, without the port; empty if it is missing or malformed."""
    try:
        return urlsplit(f"//{header or ''}").hostname or ""
    except ValueError:
        return ""


def _is_foreign(caller: Caller) -> bool:
    """Return True if a browser sent the request for a page of another site."""
    if caller.fetch_site not in (None, "same-origin", "none"):
        return True
    return caller.origin is not None and caller.origin.partition("://")[2] != caller.host


def _presented(authorization: str | None) -> bytes | None:
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


def _matches_any(presented: bytes | None, secrets: Iterable[Secret]) -> bool:
    """Compare with every secret in constant time, so that the duration reveals nothing."""
    if not presented:
        return False
    return bool(sum([hmac.compare_digest(presented, secret.reveal().encode()) for secret in secrets]))
