"""Standard Webhooks and Svix: any sender that signs by that scheme. There is no list to compare with.

Source: the Standard Webhooks specification and standardwebhooks 1.1.0, svix 2.9.1, read November 2026.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec

from gapless_reconcilers.kit.contract import (
    NO_EVIDENCE,
    Basis,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoders import decode_or_none, decode_webhook, recordable
from gapless_reconcilers.kit.standard_signature import (
    HEADERS,
    PREFIXES,
    PUBLIC,
    SYMMETRIC,
    TWIN_HEADERS,
    Sent,
    StandardKeys,
    sign,
)


class StandardWebhooksOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sender."""

    secret: tuple[Secret, ...]
    """`whsec_…` (symmetric) or `whpk_…` (the sender's ed25519 public key), one or, while it is rolled, several."""
    tolerance: timedelta = timedelta(seconds=300)
    """The accepted difference of a webhook's time from ours, in either direction. Default: the official libraries'."""
    type: str = "webhook"
    """The type of events whose body has none."""


class _Body(msgspec.Struct, gc=False):
    """The fields that the specification suggests for a body but does not require."""

    type: Any = None
    timestamp: Any = None


class StandardWebhooks:
    """One sender of Standard Webhooks. The key of an event is its `webhook-id`, which is the same for every retry."""

    kind: ClassVar[str] = "standard_webhooks"
    Options: ClassVar[type[StandardWebhooksOptions]] = StandardWebhooksOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.NONE,
        basis=Basis.VENDOR_SDK,
        remedy=Remedy.NONE,
        rendering=Rendering.EXACT,
        signature_headers=HEADERS,
        twin_headers=TWIN_HEADERS,
        unproven=(
            "That nothing is missing: there is no list. Silence alone can be watched (silence_after). What is signed "
            "with ed25519 cannot be delivered with the sender's signature: only the sender has the key."
        ),
    )

    def __init__(self, options: StandardWebhooksOptions) -> None:
        self.options = options
        self._keys = StandardKeys(options.secret)

    def auth(self) -> None:
        """Return None: no requests are sent."""
        return

    def budget_scope(self) -> str:
        """Return one scope for all: no requests are counted."""
        return "standard_webhooks"

    def option_problems(self) -> list[str]:
        """Report secrets that can verify nothing."""
        bad = self._keys.unusable
        message = (
            f"{bad} of {len(self.options.secret)} secrets are neither {SYMMETRIC} nor {PUBLIC} with base64 behind it"
        )
        return [f"{message}; copy them whole from the sender's page"] if bad else []

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """Return the one event of a webhook: any JSON."""
        sent = self._keys.verify(request, now, self.options.tolerance)
        decode_webhook(request.body, msgspec.Raw)
        body = decode_or_none(request.body, _Body) or _Body()
        return Reply(events=(recordable(None, self._event, sent, body, request.body),))

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified webhook claims."""
        keys = (request.header(f"{prefix}-id") for prefix in PREFIXES)
        return tuple(key for key in keys if key)[:1]

    def _event(self, sent: Sent, body: _Body, payload: bytes) -> RemoteEvent:
        return RemoteEvent(
            key=sent.id,
            type=body.type if isinstance(body.type, str) and body.type else self.options.type,
            occurred_at=_when(body.timestamp) or datetime.fromtimestamp(sent.at_s, UTC),
            payload=payload,
            listable=False,
        )

    def render(
        self,
        event: RecordedEvent,
        target_url: str,  # noqa: ARG002
        secret: Secret,
        now: datetime,
    ) -> WebhookMessage | CannotRender:
        """Return the event as received, signed now with `secret`."""
        headers = sign(secret, event.key, event.payload, now)
        if headers is None:
            return CannotRender(
                reason=f"only a symmetric secret ({SYMMETRIC}) can sign; the sender keeps the other kind"
            )
        return WebhookMessage(headers={"content-type": "application/json", **headers}, body=event.payload)


def _when(timestamp: object) -> datetime | None:
    """Return the body's own time if it has a zone."""
    if not isinstance(timestamp, str):
        return None
    try:
        time = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.utcoffset() is not None else None


PROVIDER = StandardWebhooks
