"""The scheme whose header has the time of the webhook beside its signatures."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.signatures import MOST_PARTS, bounded, split_bounded
from gapless_reconcilers.providers.rest_list.hmacs import LOWER, HmacSignature
from gapless_reconcilers.providers.rest_list.places import Place
from gapless_reconcilers.providers.rest_list.schemes import (
    NO_HEADERS,
    PLACES,
    assembled,
    check_tolerance,
    required,
    written_time,
)

MOST_DIGITS: Final = 15


class TimedSignature(HmacSignature, tag="timed_hmac", frozen=True, kw_only=True):
    """A header with the time and one or several HMACs: `t=1700000000,v1=5257a8…`.

    Without names, as in `1700000000000,5257a8…`, the time is the first part and each other one a signature.
    """

    separator: str = ","
    time: str = "t"
    """The name of the time."""
    name: str = "v1"
    """The name of the signature."""
    signed: str | tuple[str, ...] = "{time}.{body}"
    """The signed text, made of `{time}` and `{body}`, and of what else `hmac` knows."""
    tolerance: timedelta | None = timedelta(seconds=300)
    """The accepted difference from our time, in either direction."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        read = [Place.of(each.removesuffix(LOWER)) for text in self.texts for each in PLACES.findall(text)]
        return tuple(dict.fromkeys((self.header.lower(), *(place.name for place in read if place.is_header))))

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing."""
        for text in self.texts:
            self._check_text(text)
            if "{time}" not in text:
                raise OptionsInvalid(
                    "signature.signed has no {time}; anybody could write another beside an old signature"
                )
        if not self.separator.strip() or "=" in self.separator or (self.name == self.time and self.name):
            raise OptionsInvalid("signature.separator, name and time cannot part the header; wanted such as , v1 and t")
        check_tolerance(self.tolerance)

    @property
    def _names_time(self) -> bool:
        return True

    def parts(self, request: WebhookRequest) -> tuple[str, list[bytes]]:
        """Return the text of the time, and the signatures. Raises `SignatureInvalid`."""
        items = self._items(request)
        if self.time or self.name:
            times = [value for name, value in items if name == self.time]
            found = [value for name, value in items if name == self.name]
        else:
            times, found = [items[0][1]], [value for _, value in items[1:]]
        is_time = len(times) == 1 and times[0].isascii() and times[0].isdigit() and len(times[0]) <= MOST_DIGITS
        if not is_time or not found:
            raise SignatureInvalid(f"{self.header} is not of the form {self._written('…', '…')}", reason="bad_header")
        return times[0], bounded([self._normal(each.encode("latin-1")) for each in found])

    def _items(self, request: WebhookRequest) -> list[tuple[str, str]]:
        items = split_bounded(required(request, self.header), self.separator.strip(), MOST_PARTS)
        if not self.time and not self.name:
            return [("", each.strip()) for each in items]
        parts = [each.strip().partition("=") for each in items]
        return [(name, value) for name, _, value in parts]

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> dict[str, str] | None:
        """Return the headers of `body`, sent at `now`; None if a part of what is signed is not ours to write."""
        if not self.can_sign:
            return None
        time = written_time(now, self.unit)
        request = WebhookRequest(headers=(), body=body)
        message = assembled(self.texts[0], self._piece(request, time, self.url and url))
        return {self.header.lower(): self._written(time, self.mac(secret.reveal().encode(), message).decode())}

    def _written(self, time: str, signature: str) -> str:
        parts = [f"{self.time}={time}" if self.time else time, f"{self.name}={signature}" if self.name else signature]
        return self.separator.join(parts)
