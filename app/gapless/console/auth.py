"""Who may see and do what on the private listener. Pure.

Bound to loopback, reads are open to whoever is on the machine, but not to a web page that has its own
name resolve to 127.0.0.1: the `Host` must be a loopback one. Bound wider, everything but the probes
needs a token. What changes something needs a token everywhere: the one that each process makes for
itself and shows only to its own user, or the configured one.
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
"""The token as it is configured now; None: there is none."""


class Area(StrEnum):
    """What a request is about."""

    PROBE = "probe"
    METRICS = "metrics"
    READ = "read"
    WRITE = "write"


class AccessDecision(Enum):
    """Whether a request is let in; else the HTTP status and what to do about it."""

    WELCOME = (200, "")
    TOKEN_WANTED = (401, "send the token: Authorization: Bearer <token>, or as the password of Basic")
    STRANGE_HOST = (403, "the Host header names no loopback address; call 127.0.0.1 or localhost, or send the token")
    STRANGE_ORIGIN = (403, "the request comes from another site")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.value[1]


def no_token() -> None:
    """No token is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of one listener. `run_token` is made anew by each process."""

    bind: str
    run_token: Secret
    token: TokenNow = no_token
    metrics_token: TokenNow = no_token

    def __post_init__(self) -> None:
        if not is_loopback(self.bind) and self.token() is None:
            raise ValueError(f"private.host is {self.bind!r}, which others can reach: set private.token_env")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a request says of itself; None: the header is missing."""

    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    authorization: str | None = None


def decide_access(access: Access, area: Area, caller: Caller) -> AccessDecision:
    """Whether `caller` may enter `area`."""
    if area is Area.PROBE:
        return AccessDecision.WELCOME
    if area is Area.WRITE and _is_foreign(caller):
        return AccessDecision.STRANGE_ORIGIN
    token, metrics_token = access.token(), access.metrics_token()
    good = [access.run_token, token, metrics_token if area is Area.METRICS else None]
    if _matches_any(_presented(caller.authorization), (secret for secret in good if secret is not None)):
        return AccessDecision.WELCOME
    if area is Area.WRITE or (metrics_token if area is Area.METRICS else token) is not None:
        return AccessDecision.TOKEN_WANTED
    if not is_loopback(access.bind):
        return AccessDecision.WELCOME if area is Area.METRICS else AccessDecision.TOKEN_WANTED
    return AccessDecision.WELCOME if is_loopback(host_name(caller.host)) else AccessDecision.STRANGE_HOST


def host_name(header: str | None) -> str:
    """The name or address in a `Host` header, without the port; empty if there is none or it cannot be read."""
    try:
        return urlsplit(f"//{header or ''}").hostname or ""
    except ValueError:
        return ""


def _is_foreign(caller: Caller) -> bool:
    """True if a browser says that another site's page sends this."""
    if caller.fetch_site not in (None, "same-origin", "none"):
        return True
    return caller.origin is not None and caller.origin.partition("://")[2] != caller.host


def _presented(authorization: str | None) -> bytes | None:
    """The token in an `Authorization` header; None if there is none that can be read."""
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
    """Compares with every secret, each in constant time, so that the time tells nothing."""
    if not presented:
        return False
    return bool(sum([hmac.compare_digest(presented, secret.reveal().encode()) for secret in secrets]))
