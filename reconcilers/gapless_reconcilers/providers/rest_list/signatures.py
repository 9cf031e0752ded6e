"""The five schemes by which a vendor's webhooks are proven genuine; each verifies and signs."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal

import msgspec

from gapless_reconcilers.kit import standard_signature
from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.signatures import (
    MOST_PARTS,
    SigningKeys,
    bounded,
    hmac_sha256_base64,
    hmac_sha256_hex,
    is_same,
    is_signed_by_any,
    split_bounded,
)

UNKNOWN: Final = "the signature is that of no secret we know; check the secret"
_PLACES: Final = re.compile(r"\{([^{}]*)\}")
_DIGITS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


class Scheme(msgspec.Struct, tag_field="scheme", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all schemes."""

    secret: tuple[Secret, ...]
    """One secret or, while it changes, several."""

    signs_body: ClassVar[bool] = True
    """False if the webhook only carries the secret."""
    twins: ClassVar[tuple[str, ...]] = ()
    """Other names of the headers that some senders use."""

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing with any secret."""

    def carried(self) -> dict[str, tuple[str, ...]]:
        """Return the accepted values of each header that carries a secret itself, by its name in lower case."""
        return {}

    @property
    def unusable(self) -> int:
        """The number of secrets that can verify nothing."""
        return len(self.secret) - len(list(SigningKeys(self.secret)))


class HmacSignature(Scheme, tag="hmac", frozen=True, kw_only=True):
    """A header with the HMAC-SHA256 of the body, for some vendors also of the address it is sent to."""

    header: str
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    """The text before the signature, such as `sha256=`."""
    signed: str = "{body}"
    """The signed text, made of `{url}` and `{body}`, such as `{url}{body}`."""
    url: str = ""
    """Our address exactly as registered, if it is signed too."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return (self.header.lower(),)

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing."""
        _check_places(self.signed, {"url", "body"})
        if "{url}" in self.signed and not self.url:
            raise OptionsInvalid("signature.url is empty; wanted our address exactly as it is registered there")

    def verify(self, request: WebhookRequest, now: datetime) -> None:  # noqa: ARG002 - no time is signed
        """Raise `SignatureInvalid` unless one of the secrets signed the request."""
        text = _header(request, self.header)
        if not text.startswith(self.prefix):
            raise SignatureInvalid(f"{self.header} does not begin with {self.prefix!r}", reason="bad_header")
        signature = text.removeprefix(self.prefix).encode("latin-1")
        if not is_signed_by_any(
            SigningKeys(self.secret), [signature], self._message(request.body, self.url), self._mac
        ):
            raise SignatureInvalid(UNKNOWN)

    def sign(self, secret: Secret, key: str, body: bytes, url: str, now: datetime) -> dict[str, str]:  # noqa: ARG002
        """Return the headers of `body`, sent to `url`."""
        signature = self._mac(secret.reveal().encode(), self._message(body, self.url and url))
        return {self.header.lower(): self.prefix + signature.decode()}

    def _message(self, body: bytes, url: str) -> bytes:
        return _assembled(self.signed, {"url": url.encode(), "body": body})

    def _mac(self, key: bytes, message: bytes) -> bytes:
        return hmac_sha256_hex(key, message) if self.encoding == "hex" else hmac_sha256_base64(key, message)


class TimedSignature(Scheme, tag="timed_hmac", frozen=True, kw_only=True):
    """A header with the time and one or several HMAC-SHA256 in hex: `t=1700000000,v1=5257a8…`."""

    header: str
    separator: str = ","
    time: str = "t"
    """The name of the time."""
    unit: Literal["s", "ms"] = "s"
    """The unit of the time since 1970."""
    name: str = "v1"
    """The name of the signature."""
    signed: str = "{time}.{body}"
    """The signed text, made of `{time}` and `{body}`."""
    tolerance: timedelta = timedelta(seconds=300)
    """The accepted difference from our time, in either direction."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return (self.header.lower(),)

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing."""
        _check_places(self.signed, {"time", "body"})
        if "{time}" not in self.signed:
            raise OptionsInvalid("signature.signed has no {time}; anybody could write another beside an old signature")
        if not self.separator.strip() or "=" in self.separator or self.name == self.time:
            raise OptionsInvalid("signature.separator, name and time cannot part the header; wanted such as , v1 and t")
        if self.tolerance <= timedelta(0):
            raise OptionsInvalid("signature.tolerance is nothing, so that every webhook is too late; wanted such as 5m")

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the request, near enough in time."""
        items = split_bounded(_header(request, self.header), self.separator.strip(), MOST_PARTS)
        parts = [each.strip().partition("=") for each in items]
        times = [value for name, _, value in parts if name == self.time]
        signatures = bounded([value.encode("latin-1") for name, _, value in parts if name == self.name])
        if len(times) != 1 or not _DIGITS.fullmatch(times[0]) or not signatures:
            problem = f"{self.header} is not of the form {self.time}=…{self.separator}{self.name}=…"
            raise SignatureInvalid(problem, reason="bad_header")
        message = _assembled(self.signed, {"time": times[0].encode(), "body": request.body})
        if not is_signed_by_any(SigningKeys(self.secret), signatures, message):
            raise SignatureInvalid(UNKNOWN)
        if abs(now.timestamp() - int(times[0]) / self._per_second) > self.tolerance.total_seconds():
            raise SignatureInvalid("the webhook's time is too far from ours; check the clock", reason="stale")

    def sign(self, secret: Secret, key: str, body: bytes, url: str, now: datetime) -> dict[str, str]:  # noqa: ARG002
        """Return the headers of `body`, sent at `now`."""
        time = str(int(now.timestamp() * self._per_second))
        message = _assembled(self.signed, {"time": time.encode(), "body": body})
        signature = hmac_sha256_hex(secret.reveal().encode(), message).decode()
        return {self.header.lower(): f"{self.time}={time}{self.separator}{self.name}={signature}"}

    @property
    def _per_second(self) -> int:
        return 1 if self.unit == "s" else 1000


class StandardSignature(Scheme, tag="standard_webhooks", frozen=True, kw_only=True):
    """Standard Webhooks, and Svix."""

    key: Literal["base64", "text"] = "base64"
    """The signing key: the secret decoded from base64, as in the specification, or its text (Increase)."""
    tolerance: timedelta = timedelta(seconds=300)
    """The accepted difference from our time, in either direction."""
    twins: ClassVar[tuple[str, ...]] = standard_signature.TWIN_HEADERS

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return standard_signature.HEADERS

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing."""
        if self.tolerance <= timedelta(0):
            raise OptionsInvalid("signature.tolerance is nothing, so that every webhook is too late; wanted such as 5m")

    @property
    def unusable(self) -> int:
        """The number of secrets that do not have the scheme's form."""
        return standard_signature.StandardKeys([self._standard(each) for each in self.secret]).unusable

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the request, near enough in time."""
        standard_signature.StandardKeys([self._standard(each) for each in self.secret]).verify(
            request, now, self.tolerance
        )

    def sign(self, secret: Secret, key: str, body: bytes, url: str, now: datetime) -> dict[str, str] | None:  # noqa: ARG002
        """Return the headers of `body`, sent at `now`; None if `secret` cannot sign."""
        return standard_signature.sign(self._standard(secret), key, body, now)

    def _standard(self, secret: Secret) -> Secret:
        """Return `secret` in the specification's form."""
        return secret if self.key == "base64" else Secret(b64encode(secret.reveal().encode()).decode())


class BasicSignature(Scheme, tag="basic", frozen=True, kw_only=True):
    """No signature, but a name and a password that only the vendor and we know (RFC 7617): `name:password`."""

    signs_body: ClassVar[bool] = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return ("authorization",)

    def carried(self) -> dict[str, tuple[str, ...]]:
        """Return what the header holds with each secret. The word before it may be written in small letters too."""
        packed = [b64encode(each.reveal().encode()).decode() for each in self.secret]
        return {"authorization": tuple(f"{word} {each}" for each in packed for word in ("Basic", "basic"))}

    def verify(self, request: WebhookRequest, now: datetime) -> None:  # noqa: ARG002 - nothing is signed
        """Raise `SignatureInvalid` unless the request carries one of the secrets."""
        scheme, _, credentials = _header(request, "authorization").partition(" ")
        if scheme.lower() != "basic" or not _is_one_of(self.secret, _unpacked(credentials.strip())):
            raise SignatureInvalid("the name or the password is not one that we know; check the secret")

    def sign(self, secret: Secret, key: str, body: bytes, url: str, now: datetime) -> dict[str, str]:  # noqa: ARG002
        """Return the header that carries `secret`."""
        return {"authorization": f"Basic {b64encode(secret.reveal().encode()).decode()}"}


class TokenSignature(Scheme, tag="token", frozen=True, kw_only=True):
    """No signature, but a header with a text that only the vendor and we know."""

    header: str
    signs_body: ClassVar[bool] = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return (self.header.lower(),)

    def carried(self) -> dict[str, tuple[str, ...]]:
        """Return the secrets, which the header holds as they are."""
        return {self.header.lower(): tuple(each.reveal() for each in self.secret)}

    def verify(self, request: WebhookRequest, now: datetime) -> None:  # noqa: ARG002 - nothing is signed
        """Raise `SignatureInvalid` unless the request carries one of the secrets."""
        if not _is_one_of(self.secret, _header(request, self.header).encode("latin-1")):
            raise SignatureInvalid(f"{self.header} is none that we know; check the secret")

    def sign(self, secret: Secret, key: str, body: bytes, url: str, now: datetime) -> dict[str, str]:  # noqa: ARG002
        """Return the header that carries `secret`."""
        return {self.header.lower(): secret.reveal()}


Signature = HmacSignature | TimedSignature | StandardSignature | BasicSignature | TokenSignature


def _header(request: WebhookRequest, name: str) -> str:
    value = request.header(name.lower())
    if not value:
        raise SignatureInvalid(f"there is no {name} header", reason="no_signature")
    return value


def _is_one_of(secrets: Sequence[Secret], received: bytes) -> bool:
    return any([is_same(known, received) for known in SigningKeys(secrets)])  # noqa: C419 - each takes its time


def _unpacked(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def _assembled(template: str, parts: dict[str, bytes]) -> bytes:
    return b"".join(_pieces(template, parts))


def _pieces(template: str, parts: dict[str, bytes]) -> Iterator[bytes]:
    for number, piece in enumerate(_PLACES.split(template)):
        yield parts[piece] if number % 2 else piece.encode()


def _check_places(template: str, known: set[str]) -> None:
    for place in _PLACES.findall(template):
        if place not in known:
            wanted = ", ".join(f"{{{each}}}" for each in sorted(known))
            raise OptionsInvalid(f"signature.signed has {{{place}}}; use {wanted}")
    if "{body}" not in template:
        raise OptionsInvalid("signature.signed has no {body}; what is not signed proves nothing")
