"""What all schemes share by which a vendor's webhooks are proven genuine: a secret, and pieces of the signed text."""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType
from typing import ClassVar, Final

import msgspec

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys, is_same

UNKNOWN: Final = "the signature is that of no secret we know; check the secret"
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
PLACES: Final = re.compile(r"\{([^{}]*)\}")
_DIGITS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_PER_SECOND: Final = {"s": 1, "ms": 1000}


class Scheme(msgspec.Struct, tag_field="scheme", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all schemes."""

    secret: tuple[Secret, ...]
    """One secret or, while it changes, several."""

    signs_body: ClassVar[bool] = True
    """False if the webhook only carries the secret, or if the signature does not cover the body."""
    twins: ClassVar[tuple[str, ...]] = ()
    """Other names of the headers that some senders use."""
    can_sign: ClassVar[bool] = True
    """False if only the vendor has the key, or if nothing can be signed without what only the vendor knows."""
    is_of_events: ClassVar[bool] = False
    """True if each event of a webhook is signed by itself."""

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing with any secret."""

    def carried(self) -> dict[str, tuple[str, ...]]:
        """Return the accepted values of each header that carries a secret itself, by its name in lower case."""
        return {}

    def verify_event(self, text: msgspec.Raw | bytes) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the event, if each is signed by itself."""

    def without_secrets(self, body: bytes) -> bytes:
        """Return what may be kept of a verified body: all of it, unless the body carries the secret."""
        return body

    def check_cut_out(self, text: msgspec.Raw | bytes) -> None:
        """Raise `MalformedWebhook` if an event of `without_secrets` still carries the secret."""

    @property
    def unusable(self) -> int:
        """The number of secrets that can verify nothing."""
        return len(self.secret) - len(list(SigningKeys(self.secret)))


def required(request: WebhookRequest, name: str) -> str:
    """Return the value of a header. Raises `SignatureInvalid` if there is none."""
    value = request.header(name.lower())
    if not value:
        raise SignatureInvalid(f"there is no {name} header", reason="no_signature")
    return value


def is_one_of(secrets: Sequence[Secret], received: bytes) -> bool:
    """Return True if `received` is one of the secrets."""
    return any([is_same(known, received) for known in SigningKeys(secrets)])  # noqa: C419 - each takes its time


def unpacked(text: str) -> bytes:
    """Return the bytes behind base64; none if it is not."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def assembled(template: str, piece: Callable[[str], bytes]) -> bytes:
    """Return the text that `template` describes; `piece` gives what stands at each place in braces."""
    return b"".join(_pieces(template, piece))


def _pieces(template: str, piece: Callable[[str], bytes]) -> Iterator[bytes]:
    for number, (part, encoded) in enumerate(_parted(template)):
        yield piece(part) if number % 2 else encoded


@cache
def _parted(template: str) -> tuple[tuple[str, bytes], ...]:
    """Return the fixed texts of a template and, between them, its places."""
    return tuple((part, part.encode()) for part in PLACES.split(template))


def check_tolerance(tolerance: timedelta | None) -> None:
    """Raise `OptionsInvalid` for one in which no webhook is in time."""
    if tolerance is not None and tolerance <= timedelta(0):
        raise OptionsInvalid("signature.tolerance is nothing, so that every webhook is too late; wanted such as 5m")


def seconds_of(text: str, unit: str) -> float:
    """Return the time in `text`, in seconds since 1970. Raises `SignatureInvalid`."""
    if unit in _PER_SECOND:
        if not _DIGITS.fullmatch(text):
            raise SignatureInvalid("the time of the signature is no number", reason="bad_header")
        return int(text) / _PER_SECOND[unit]
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SignatureInvalid("the time of the signature cannot be read", reason="bad_header") from None
    return (time if time.utcoffset() is not None else time.replace(tzinfo=UTC)).timestamp()


def written_time(now: datetime, unit: str) -> str:
    """Return `now` as the vendor writes it."""
    if unit in _PER_SECOND:
        return str(int(now.timestamp() * _PER_SECOND[unit]))
    return now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def check_time(at: float, now: datetime, tolerance: timedelta | None, ahead: timedelta | None = None) -> None:
    """Raise `SignatureInvalid` if the time is too far before `now`, or after it by more than `ahead`.

    `tolerance`: None: no time is too old. `ahead`: None: as far as `tolerance` says.
    """
    if tolerance is None:
        return
    age, later = now.timestamp() - at, tolerance if ahead is None else ahead
    if age > tolerance.total_seconds() or -age > later.total_seconds():
        raise SignatureInvalid("the webhook's time is too far from ours; check the clock", reason="stale")
