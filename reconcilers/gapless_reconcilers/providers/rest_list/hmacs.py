"""The schemes that sign a text, made of parts of the request in an order: with a shared secret, or the vendor's key."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid, UnexpectedShape
from gapless_reconcilers.kit.signatures import (
    MOST_PARTS,
    SigningKeys,
    bounded,
    is_signed_by_any,
    require_single_names,
    split_bounded,
)
from gapless_reconcilers.providers.rest_list.places import Parts, Place
from gapless_reconcilers.providers.rest_list.schemes import (
    NO_HEADERS,
    PLACES,
    UNKNOWN,
    Scheme,
    assembled,
    check_time,
    check_tolerance,
    required,
    seconds_of,
    written_time,
)

LOWER: Final = "|lower"
"""After a place: its text in small letters."""
_PLAIN: Final = frozenset(("url", "body", "time", "method", "path", "form"))
_LISTED: Final = re.compile(r"\{headers:([^{}]*)\}")
_FIELD: Final = re.compile(r"[\w.\[\]@-]+")
_PADDED: Final = b"="


class SignedText(Scheme, frozen=True, kw_only=True):
    """What such schemes have in common: where the signature stands, and which text is signed."""

    header: str = ""
    field: str = ""
    """Path in the body at which the signature stands, if no header has it."""
    also: tuple[str, ...] = ()
    """Other headers that may hold a signature, such as that of the key before."""
    encoding: Literal["hex", "base64"] = "hex"
    """The form of a signature."""
    lenient: bool = False
    """True if hexadecimal digits may have either case, and base64 its padding or not."""
    prefix: str = ""
    """The text before each signature, such as `sha256=`."""
    bare: bool = False
    """True if a signature without that text is taken too, as the vendor's library does."""
    separator: str = ""
    """What parts several signatures in one header; "": there is one."""
    signed: str | tuple[str, ...] = "{body}"
    """The signed text; several if a vendor signs now one, now another.

    Made of `{body}`, `{time}`, `{method}`, `{url}`, `{path}` (of `url`), `{form}` (the fields of a form, sorted, each
    name before its values), `{header:<name>}`, `{query:<name>}`, `{headers:<name>}` (each header that this one lists,
    sorted, as `name:value` parted by `;`), and of fields of the body by their paths."""
    covers: tuple[str, ...] = ()
    """Further headers that are signed, and without which a webhook is not the vendor's."""
    url: str = ""
    """Our address exactly as registered, if it is signed too."""
    body_unsigned: bool = False
    """True if the vendor's signature does not cover the body: who has seen one webhook can send others."""
    body_hash: str = ""
    """The place in `signed` of the body's SHA-256 in hexadecimal, such as `query:bodySHA256`; "": there is none."""
    time: str = ""
    """Where the time stands: `header:<name>`, or a path in the body; "": none is signed."""
    unit: Literal["s", "ms", "rfc3339"] = "s"
    """The form of the time."""
    tolerance: timedelta | None = None
    """The accepted difference from our time; None: the vendor names none, and an old webhook is taken."""
    ahead: timedelta | None = None
    """The part of it after our time; None: as much."""

    @property
    def signs_body(self) -> bool:  # type: ignore[override]
        """False if the signature does not cover the body."""
        return not self.body_unsigned

    @property
    def twins(self) -> tuple[str, ...]:  # type: ignore[override]
        """The other headers that may hold a signature."""
        return tuple(each.lower() for each in self.also)

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        read = [Place.of(each.removesuffix(LOWER)) for text in self.texts for each in PLACES.findall(text)]
        read.append(Place.of(self.time))
        names = [self.header.lower(), *(place.name for place in read if place.is_header)]
        names += [list_name for text in self.texts for list_name in _LISTED.findall(text)]
        names += [each.lower() for each in self.covers]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def texts(self) -> tuple[str, ...]:
        """The signed texts that are tried."""
        return (self.signed,) if isinstance(self.signed, str) else self.signed

    @property
    def can_sign(self) -> bool:  # type: ignore[override]
        """False if what is signed stands in the query or the signature in the body, which are not ours to write."""
        unknown = ("{query:", "{path", "{headers:")
        return not self.field and not any(each in text for text in self.texts for each in unknown)

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing."""
        if bool(self.header) == bool(self.field):
            raise OptionsInvalid(
                "signature.header is empty or there is a field too; name the one that has the signature"
            )
        for text in self.texts:
            self._check_text(text)
        check_tolerance(self.tolerance)
        if self.tolerance is not None and not self.time:
            raise OptionsInvalid("signature.tolerance is that of no time; name where signature.time stands")

    def _check_text(self, text: str) -> None:
        for place in PLACES.findall(text):
            name = place.removesuffix(LOWER)
            is_known = (
                name in _PLAIN or name.startswith(("header:", "headers:", "query:")) or "." in name or self.is_of_events
            )
            if not is_known or not _FIELD.fullmatch(name.rpartition(":")[2]):
                wanted = ", ".join(f"{{{each}}}" for each in sorted(_PLAIN))
                raise OptionsInvalid(
                    f"signature.signed has {{{place}}}; use {wanted}, {{header:…}}, {{query:…}}, {{a.b}}"
                )
            if name == "time" and not self._names_time:
                raise OptionsInvalid("signature.signed has {time}, and signature.time does not say where it stands")
        covers = ("{body}", "{form}", *([f"{{{self.body_hash}}}"] if self.body_hash else []))
        if not any(each in text for each in covers) and not self.body_unsigned and not self.is_of_events:
            raise OptionsInvalid("signature.signed has no {body}; what is not signed proves nothing")
        if ("{url" in text or "{path" in text) and not self.url:
            raise OptionsInvalid("signature.url is empty; wanted our address exactly as it is registered there")

    @property
    def _names_time(self) -> bool:
        return bool(self.time)

    def signatures(self, request: WebhookRequest) -> list[bytes]:
        """Return what may be signatures, without their prefixes. Raises `SignatureInvalid`."""
        if self.field:
            texts = [_field_text(Parts(request.body), self.field)]
        else:
            texts = [required(request, self.header)] if not self.also else self._in_headers(request)
        found = [each.strip() for text in texts for each in self._split(text)]
        fitting = [each.removeprefix(self.prefix) for each in found if self.bare or each.startswith(self.prefix)]
        if not fitting:
            raise SignatureInvalid(
                f"{self.header or self.field} does not begin with {self.prefix!r}", reason="bad_header"
            )
        return bounded([self._normal(each.encode("latin-1", "replace")) for each in fitting])

    def _in_headers(self, request: WebhookRequest) -> list[str]:
        found = [value for name in (self.header, *self.also) if (value := request.header(name.lower()))]
        return found or [required(request, self.header)]

    def _split(self, text: str) -> list[str]:
        return split_bounded(text, self.separator.strip() or " ", MOST_PARTS) if self.separator else [text]

    def _normal(self, signature: bytes) -> bytes:
        if self.encoding == "hex":
            return signature.lower() if self.lenient else signature
        return (
            signature.rstrip(_PADDED) + _PADDED * (-len(signature.rstrip(_PADDED)) % 4) if self.lenient else signature
        )

    def messages(self, request: WebhookRequest, time: str) -> Iterator[bytes]:
        """Yield the texts of which one must be signed. Raises `SignatureInvalid` if a part is missing."""
        for text in self.texts:
            yield request.body if text == "{body}" else assembled(text, self._piece(request, time, self.url))

    def time_of(self, request: WebhookRequest) -> str:
        """Return the text of the time; "": none is signed. Raises `SignatureInvalid`."""
        if not self.time:
            return ""
        place = Place.of(self.time)
        return required(request, place.name) if place.is_header else _field_text(Parts(request.body), self.time)

    def parts(self, request: WebhookRequest) -> tuple[str, list[bytes]]:
        """Return the text of the time, and the signatures. Raises `SignatureInvalid`."""
        return self.time_of(request), self.signatures(request)

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the request, near enough in time."""
        time, found = self.parts(request)
        self._check_time_is_listed(request)
        if not any([self.fits(found, message) for message in self.messages(request, time)]):  # noqa: C419 - as above
            raise SignatureInvalid(UNKNOWN)
        if self.body_hash and plain_text(self.body_hash, request, time, self.url).lower() != body_hash(request.body):
            raise SignatureInvalid("what is signed is the hash of another body")
        if self._names_time:
            check_time(seconds_of(time, self.unit), now, self.tolerance, self.ahead)

    def _check_time_is_listed(self, request: WebhookRequest) -> None:
        """Raise `SignatureInvalid` if the headers that are signed do not include that of the time."""
        time = Place.of(self.time)
        for name in _LISTED.findall(self.texts[0]) if time.is_header else ():
            if time.name not in listed_headers(request, name):
                raise SignatureInvalid(f"{name} does not list {time.name}, so that the time is not signed")

    def fits(self, signatures: list[bytes], message: bytes) -> bool:
        """Return True if one of the secrets made one of `signatures` of `message`."""
        raise NotImplementedError

    def _piece(self, request: WebhookRequest, time: str, url: str) -> Callable[[str], bytes]:
        def piece(written: str) -> bytes:
            name, is_lower = written.removesuffix(LOWER), written.endswith(LOWER)
            if name == "body":
                return request.body
            text = plain_text(name, request, time, url)
            return (text.lower() if is_lower else text).encode()

        return piece


def listed_headers(request: WebhookRequest, name: str) -> list[str]:
    """Return the headers that the header `name` lists, sorted. Raises `SignatureInvalid`."""
    parts = split_bounded(required(request, name), ",", MOST_PARTS)
    return sorted({each.strip().lower() for each in parts})


def body_hash(body: bytes) -> str:
    """Return the SHA-256 of a body in hexadecimal."""
    return sha256(body).hexdigest()


def plain_text(name: str, request: WebhookRequest, time: str, url: str) -> str:
    """Return what stands at the place `name` of a signed text. Raises `SignatureInvalid`."""
    if name in ("time", "method", "url", "path", "form"):
        path = urlsplit(url).path if name == "path" else ""
        form = _form_text(request.body) if name == "form" else ""
        return {"time": time, "method": request.method, "url": url, "path": path, "form": form}[name]
    if name.startswith("headers:"):
        listed = listed_headers(request, name.removeprefix("headers:"))
        return ";".join(f"{each}:{required(request, each).strip()}" for each in listed)
    place = Place.of(name)
    if place.is_header:
        return required(request, place.name)
    if place.is_query:
        return request.param(place.name) or ""
    return _field_text(Parts(request.body), name)


def _field_text(parts: Parts, path: str) -> str:
    """Return the text of a field as it is signed: nothing for one that is absent or null."""
    try:
        value = Place(path).value(parts)
    except UnexpectedShape:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None or not isinstance(value, str | int | float) else str(value)


def _form_text(body: bytes) -> str:
    """Return each name of a form with its different values, sorted."""
    try:
        pairs = set(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000))
    except ValueError:
        raise SignatureInvalid("the body is no form", reason="malformed") from None
    values: dict[str, set[str]] = {}
    for name, value in pairs:
        values.setdefault(name, set()).add(value)
    return "".join(name + value for name in sorted(values) for value in sorted(values[name]))


class HmacSignature(SignedText, tag="hmac", frozen=True, kw_only=True):
    """An HMAC of the body or of other parts of the request, in one header or several."""

    digest: Literal["sha1", "sha256", "sha512"] = "sha256"
    key: Literal["text", "hex", "base64"] = "text"
    """The signing key: the text of the secret, or the bytes behind it."""
    each: bool = False
    """True if each event is signed by itself: `field` and the fields in `signed` are those of the event."""

    @property
    def is_of_events(self) -> bool:  # type: ignore[override]
        """True if each event is signed by itself."""
        return self.each

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the request, near enough in time."""
        if not self.each:
            super().verify(request, now)

    def verify_event(self, text: msgspec.Raw | bytes) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the event, if each is signed by itself."""
        if not self.each:
            return
        require_single_names(bytes(text))
        parts = Parts(text)
        signature = _field_text(parts, self.field)
        if not signature:
            raise SignatureInvalid(f"an event has no {self.field}", reason="no_signature")
        messages = [assembled(one, lambda name: _field_text(parts, name).encode()) for one in self.texts]
        if not any(self.fits([self._normal(signature.encode("latin-1", "replace"))], each) for each in messages):
            raise SignatureInvalid(UNKNOWN)

    def fits(self, signatures: list[bytes], message: bytes) -> bool:
        """Return True if one of the secrets made one of `signatures` of `message`."""
        return is_signed_by_any(self.keys(self.secret), signatures, message, self.mac)

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> dict[str, str] | None:
        """Return the headers of `body`, sent to `url`; None if `secret` cannot sign, or if a header is not known."""
        keys = list(self.keys((secret,)))
        if not self.can_sign or not keys:
            return None
        pairs = tuple((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items())
        request, stamp = WebhookRequest(headers=pairs, body=body), self._stamp(body, now)
        try:
            message = assembled(self.texts[0], self._piece(request, next(iter(stamp.values()), ""), self.url and url))
        except SignatureInvalid:
            return None
        signed = {self.header.lower(): self.prefix + self.mac(keys[0], message).decode()}
        return signed | (stamp if self.time.startswith("header:") else {})

    def _stamp(self, body: bytes, now: datetime) -> dict[str, str]:
        """Return the header with the time, or the field that has it already."""
        if not self.time:
            return {}
        place = Place.of(self.time)
        return {place.name: written_time(now, self.unit) if place.is_header else _field_text(Parts(body), self.time)}

    def mac(self, key: bytes, message: bytes) -> bytes:
        """Return the HMAC of `message` as the vendor writes it."""
        made = hmac_digest(key, message, self.digest)
        return made.hex().encode() if self.encoding == "hex" else b64encode(made)

    def keys(self, secrets: Iterable[Secret]) -> Iterator[bytes]:
        """Yield the signing keys of those secrets that have the form of one."""
        for key in SigningKeys(secrets):
            try:
                made = _FORMS[self.key](key)
            except ValueError:
                continue
            if made:
                yield made

    @property
    def unusable(self) -> int:
        """The number of secrets that can verify nothing."""
        return len(self.secret) - len(list(self.keys(self.secret)))


def _from_hex(text: bytes) -> bytes:
    return bytes.fromhex(text.decode().strip())


def _from_base64(text: bytes) -> bytes:
    return b64decode(text.strip(), validate=True)


_FORMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"text": bytes, "hex": _from_hex, "base64": _from_base64}
