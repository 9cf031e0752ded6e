"""The scheme in which the body carries a secret, which is cut out before anything of it is kept."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

import re
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Final

import msgspec

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import MalformedWebhook, OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.rest_list.places import Parts, found_text
from gapless_reconcilers.providers.rest_list.schemes import NO_HEADERS, Scheme, is_one_of

CUT_OUT: Final = b"***"
_PLAIN: Final = re.compile(r"[\w.~+/=-]{8,255}", re.ASCII)


class BodyTokenSignature(Scheme, tag="body_token", frozen=True, kw_only=True):
    """No signature, but a text in each event that only the vendor and we know: 8 letters, digits or marks at least."""

    field: str
    """The path of the text in each event."""
    signs_body: ClassVar[bool] = False
    can_sign: ClassVar[bool] = False
    is_of_events: ClassVar[bool] = True
    headers: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Raise `OptionsInvalid` if there is no place for the text."""
        if not self.field:
            raise OptionsInvalid("signature.field is empty; name the path of the secret in an event")

    @property
    def unusable(self) -> int:
        """The number of secrets that are too short, or that JSON may write in several ways."""
        return len(self.secret) - len(self._usable)

    @property
    def _usable(self) -> tuple[Secret, ...]:
        return tuple(each for each in self.secret if _PLAIN.fullmatch(each.reveal()))

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Do nothing: each event carries the secret."""

    def verify_event(self, text: msgspec.Raw | bytes) -> None:
        """Raise `SignatureInvalid` unless the event carries one of the secrets."""
        received = found_text(Parts(text), self.field)
        if received is None:
            raise SignatureInvalid(f"an event has no {self.field}", reason="no_signature")
        if not is_one_of(self._usable, received.encode("utf-8", "replace")):
            raise SignatureInvalid(f"{self.field} is none that we know; check the secret")

    def without_secrets(self, body: bytes) -> bytes:
        """Return a verified body without the secrets. Raises `MalformedWebhook` if one is written in another way."""
        for key in SigningKeys(self._usable):
            body = body.replace(key, CUT_OUT)
        return body

    def check_cut_out(self, text: msgspec.Raw | bytes) -> None:
        """Raise `MalformedWebhook` if an event still carries a secret, such as one with escaped letters."""
        received = (found_text(Parts(text), self.field) or "").encode("utf-8", "replace")
        if is_one_of(self._usable, received):
            raise MalformedWebhook(f"{self.field} is written with escaped letters, so that it cannot be cut out")

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Return None: the secret is no longer in what is kept."""
        return
