"""Reads one webhook without any I/O: the result is a refusal with a reason, or sightings to record together."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from gapless.domain import Source, Via
from gapless.ledger.recorder import Sighting, Webhook
from gapless.receive.carried_secrets import secret_headers
from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    ClaimsEvents,
    Evidence,
    NeedsEvidence,
    Provider,
    Reply,
    WebhookRequest,
)
from gapless_reconcilers.kit.contract.values import check_text
from gapless_reconcilers.kit.errors import WebhookRefused

BAD_REQUEST: Final = 400
METHOD_NOT_ALLOWED: Final = 405
POST: Final = "POST"
DIGEST_BYTES: Final = 16
"""Bytes of a digest: nobody finds two messages with the same ones that are both signed by the vendor."""
MOST_CLAIMED: Final = 16
"""Most keys that are kept of what an unverified webhook claims to carry."""


class Outcome(StrEnum):
    """The outcome of a webhook: the label of `webhooks_total`."""

    ACCEPTED = "accepted"
    """Durable, and at least one of its events was new (or it carried none)."""
    DUPLICATE = "duplicate"
    """All its events were durable already."""
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    CUT = "cut"
    """The sender went away, or was too slow, before the body was whole."""
    UNSTORABLE = "unstorable"
    """Verified, but the store refuses its content."""
    UNAVAILABLE = "unavailable"
    """Nothing can be recorded now; the sender is asked to try again."""
    RECORDED_LATE = "recorded_late"
    """Answered 503 because the commit took too long, and recorded after all."""


OTHER: Final = "other"
INTERNAL: Final = "internal"
UNSTORABLE: Final = "unstorable"
METHOD: Final = "method"
ENCODING: Final = "encoding"
UNSUPPORTED_MEDIA_TYPE: Final = 415
REASONS: Final[Mapping[str, str]] = {
    "signature": "no secret that we know matches the signature",
    "no_signature": "the signature header is missing",
    "bad_header": "the signature header cannot be read",
    "stale": "the signature is too old",
    "duplicate_header": "a header that must occur once occurs several times",
    "malformed": "the body cannot be read",
    "simulator": "this is a simulated event",
    "other_account": "this is for another account than the source's",
    METHOD: "this method is not accepted here",
    ENCODING: "a body with this Content-Encoding is not accepted here",
    INTERNAL: "the webhook could not be read",
    UNSTORABLE: "the webhook could not be stored",
    OTHER: "the webhook is refused",
}
"""Every value of the label `reason`, and the text that the sender gets. A provider's other reasons count as `other`."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook is refused. `detail` is for the operator; the sender gets `REASONS[reason]`."""

    reason: str
    detail: str
    status: int = BAD_REQUEST
    bug: Exception | None = None
    """An exception that a provider must not raise."""


def read_webhook(
    provider: Provider, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
) -> Reply | NeedsEvidence | Refusal:
    """Return the events of `request`, the evidence that must be fetched first, or the refusal.

    Never raises: a provider's bug is a refusal too. Its status is one of those that the vendor may be answered with,
    and from 400 to 499: a stranger can cause no 5xx.
    """
    encoding = content_encoding(request.headers)
    if encoding and encoding not in provider.capabilities.content_encodings:
        detail = f"Content-Encoding is {encoding[:80]!r}; does a proxy compress what the vendor sent?"
        return Refusal(reason=ENCODING, detail=detail, status=UNSUPPORTED_MEDIA_TYPE)
    try:
        reply = provider.read_webhook(request, now, evidence)
    except WebhookRefused as refused:
        reason = refused.reason if refused.reason in REASONS else OTHER
        return Refusal(reason=reason, detail=refused.detail, status=refusal_status(provider, refused.status))
    except Exception as error:  # noqa: BLE001 - the loop edge: whatever a stranger sends, the process lives
        detail = f"{type(error).__name__} in provider {provider.kind}"
        return Refusal(reason=INTERNAL, detail=detail, status=refusal_status(provider, BAD_REQUEST), bug=error)
    if request.method != POST and isinstance(reply, Reply) and reply.events:
        return Refusal(reason=METHOD, detail=f"{request.method} carries no events", status=METHOD_NOT_ALLOWED)
    return reply


def refusal_status(provider: Provider, status: int) -> int:
    """Return the status with which the provider's vendor is answered if `status` is meant."""
    allowed = provider.capabilities.refusal_statuses
    wanted = status if not allowed or status in allowed else allowed[0]
    return wanted if BAD_REQUEST <= wanted < BAD_REQUEST + 100 else BAD_REQUEST


def content_encoding(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return how the body is encoded, in lower case; "": it is not."""
    found = ",".join([value.decode("latin-1") for name, value in headers if name == b"content-encoding"])
    encoding = found.strip().lower()
    return "" if encoding == "identity" else encoding


def sightings(
    source: Source,
    reply: Reply,
    stream_ids: Sequence[int],
    *,
    body: bytes,
    headers: str | None,
    seen_us: int,
    digest: bytes | None = None,
) -> Webhook:
    """Return the events of a verified webhook, to be recorded in one transaction. One stream id per event.

    `body`: as it came; the provider may name another one to be kept.

    `digest`: of its signed message; None: its events are not counted by that.
    """
    return tuple(
        [
            Sighting(
                source=source,
                stream_id=stream_id,
                event=event,
                via=Via.WEBHOOK,
                seen_us=seen_us,
                body=body if reply.body is None else reply.body,
                item=item,
                headers=headers,
                digest=digest,
            )
            for item, (event, stream_id) in enumerate(zip(reply.events, stream_ids, strict=True))
        ]
    )


def message_digest(provider: Provider, request: WebhookRequest) -> bytes | None:
    """Return the digest of the signed message; None: the signature covers the identity of the events too."""
    known = provider.capabilities
    if not known.identity_unsigned:
        return None
    if not known.message_headers:
        return sha256(request.body).digest()[:DIGEST_BYTES]
    values = (request.header(name) or "" for name in known.message_headers)
    return sha256("\n".join(values).encode("latin-1")).digest()[:DIGEST_BYTES]


def claimed_keys(provider: Provider, request: WebhookRequest) -> tuple[str, ...]:
    """Return the keys of the events that an unverified webhook claims to carry; empty: none can be read.

    Never raises. What the ledger could not store as a key is none.
    """
    if not isinstance(provider, ClaimsEvents):
        return ()
    try:
        keys = provider.claimed_keys(request)[:MOST_CLAIMED]
    except Exception:  # noqa: BLE001 - whatever a stranger sends: it is only for an explanation
        return ()
    return tuple(key for key in keys if key and _is_storable(key))


def _is_storable(key: str) -> bool:
    try:
        check_text("key", key)
    except ValueError:
        return False
    return True


def read_headers(provider: Provider) -> frozenset[bytes]:
    """Return the names of the headers that the provider reads, as a request has them."""
    known = provider.capabilities
    return frozenset(name.encode() for name in (*known.kept_headers, *known.twin_headers))


def header_names(provider: Provider) -> frozenset[bytes]:
    """Return the names of the headers to keep beside an event: those that are read, without the ones with a secret."""
    return read_headers(provider) - secret_headers(provider)


def kept_headers(pairs: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> str | None:
    """Return the signature headers among `pairs` as a JSON object; None if there are none."""
    kept = {name.decode(): value.decode("latin-1") for name, value in pairs if name in names}
    return msgspec.json.encode(kept).decode() if kept else None
