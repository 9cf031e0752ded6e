"""The requests with which a vendor proves our endpoint before it sends events, and how they are answered.

A stranger can send most of them. So nothing is recorded, what is repeated is short, plain text that no browser takes
for a page, and what is signed for a stranger is no text that could be a webhook's body.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from hmac import compare_digest, digest
from typing import Final, Literal

import msgspec

from gapless_reconcilers.kit.contract import Answer, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import MalformedWebhook, OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.rest_list import places
from gapless_reconcilers.providers.rest_list.places import Parts

ANY: Final = "*"
NOT_A_PAGE: Final = (("X-Content-Type-Options", "nosniff"),)
JSON: Final = "application/json"
_REPEATED: Final = re.compile(r"[ !#-;=?-z|~]{1,2000}", re.ASCII)
_SIGNED: Final = re.compile(r"[\w.=+/-]{1,200}", re.ASCII)
"""What is signed for whoever asks: without braces and brackets it is no JSON that could pass for a webhook."""
_OFFERED: Final = re.compile(r"[!-~]{8,500}", re.ASCII)
_FILLED: Final = re.compile(r"\{(challenge|hmac_hex|hmac_base64)\}")


class Handshake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of request that is no event, and its answer."""

    method: Literal["POST", "GET", "HEAD", "OPTIONS"] = "POST"
    when: dict[str, str] = {}
    """What distinguishes it from an event: expressions (see `places`) and the texts there; `*` is any."""
    challenge: str = ""
    """Where the text stands that the answer repeats; "": none is repeated."""
    signed: bool = False
    """True if it is signed as events are."""
    token_at: str = ""
    """Where a text stands that only the vendor and we know; "": there is none."""
    token: Secret | None = None
    offers: str = ""
    """Where the secret stands that the vendor chooses, and signs its webhooks with from then on; "": it does not."""
    answer: str | dict[str, str] = ""
    """The body: a text, or a JSON object, with `{challenge}`, `{hmac_hex}` or `{hmac_base64}` (HMAC-SHA256 of it)."""
    headers: dict[str, str] = {}
    """Headers of the answer, filled in likewise, or with places in braces: one that lacks its place is left out."""
    status: int = 200

    def check(self) -> None:
        """Raise `OptionsInvalid` if it can be no handshake, or if it would be taken for every webhook."""
        named = [*self.when, *([self.challenge] if self.challenge else []), *([self.token_at] if self.token_at else [])]
        named += [self.offers] if self.offers else []
        if not all(places.is_expression(each) for each in named):
            raise OptionsInvalid("option webhook.handshake: wanted paths, header:<name> or query:<name>")
        if self.method == "POST" and not self.when and not self.challenge:
            raise OptionsInvalid("option webhook.handshake.when is empty: every webhook would be a handshake")
        if bool(self.token_at) != (self.token is not None):
            raise OptionsInvalid("option webhook.handshake: token_at and token belong together; name both, or neither")
        if not 200 <= self.status < 300:  # noqa: PLR2004 - the successes of HTTP
            raise OptionsInvalid(f"option webhook.handshake.status is {self.status}; wanted one from 200 to 299")

    def is_meant(self, request: WebhookRequest, parts: Parts) -> bool:
        """Return True if `request` is this handshake and no event."""
        if request.method != self.method:
            return False
        found = {place: places.found_text(parts, place) for place in self.when}
        fits = all(found[place] is not None and wanted in (ANY, found[place]) for place, wanted in self.when.items())
        return fits and (not self.challenge or places.found_text(parts, self.challenge) is not None)

    def reply(
        self, request: WebhookRequest, parts: Parts, now: datetime,
        verify: Callable[[WebhookRequest, datetime], None], secrets: tuple[Secret, ...],
    ) -> Answer:  # fmt: skip
        """Return the answer. Raises `SignatureInvalid`, or `MalformedWebhook` for a challenge that is not repeated."""
        if self.signed:
            verify(request, now)
        if self.token is not None:
            known, received = self.token.reveal().encode(), (places.found_text(parts, self.token_at) or "").encode()
            if not known or not compare_digest(known, received):
                raise SignatureInvalid("the token of the handshake is not ours; compare it with the vendor's page")
        challenge = places.text_of(parts, self.challenge) if self.challenge else ""
        if challenge and not _REPEATED.fullmatch(challenge):
            raise MalformedWebhook("the challenge is no short plain text; it is not repeated")
        texts = {"challenge": challenge, **self._macs(challenge, secrets)}

        def fill(text: str) -> str:
            return _FILLED.sub(lambda match: texts[match[1]], text)

        if isinstance(self.answer, str):
            body, content_type = fill(self.answer).encode(), "text/plain; charset=utf-8"
        else:
            body, content_type = msgspec.json.encode({k: fill(v) for k, v in self.answer.items()}), JSON
        filled = ((name, _header(fill(value), value, parts)) for name, value in self.headers.items())
        headers = tuple((name, text) for name, text in filled if text is not None)
        return Answer(status=self.status, body=body, content_type=content_type, headers=(*headers, *NOT_A_PAGE))

    def offered(self, parts: Parts) -> Secret | None:
        """Return the secret that it tells us; None: it tells none. Raises `MalformedWebhook`."""
        if not self.offers:
            return None
        text = places.found_text(parts, self.offers) or ""
        if not _OFFERED.fullmatch(text):
            raise MalformedWebhook("what the handshake offers is no secret: wanted 8 to 500 letters, digits and marks")
        return Secret(text)

    @property
    def makes_macs(self) -> bool:
        """True if the answer has an HMAC of the challenge."""
        return "{hmac_" in (self.answer if isinstance(self.answer, str) else " ".join(self.answer.values()))

    def _macs(self, challenge: str, secrets: tuple[Secret, ...]) -> dict[str, str]:
        if not self.makes_macs:
            return {}
        key = next(iter(SigningKeys(secrets)), None)
        if key is None or not _SIGNED.fullmatch(challenge):
            raise MalformedWebhook("the challenge is no plain token, or there is no secret; it is not signed")
        made = digest(key, challenge.encode(), "sha256")
        return {"hmac_hex": made.hex(), "hmac_base64": b64encode(made).decode()}


def _header(filled: str, written: str, parts: Parts) -> str | None:
    """Return the value of a header; None if a place in it is not there."""
    has_places = "{" in filled and "{" in written
    return places.found_text(parts, filled) if has_places else filled
