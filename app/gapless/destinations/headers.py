"""The headers that identify an event and an attempt: the same names and values for every kind of destination.

    idempotency-key        the event's id with us: equal on all attempts and all replays of an event
    gapless-event-id       the same
    gapless-event-key      the vendor's own id
    gapless-event-type, gapless-source, gapless-stream (if any), gapless-via, gapless-occurred-at (RFC 3339)
    gapless-mode           live or test; absent if the provider has no modes
    gapless-object         the vendor's id of the object; absent if the provider does not say
    gapless-late           recovered or replayed; absent unless it comes after others that occurred after it
    gapless-attempt        1 for the first

A message of SQS can carry no more than ten attributes: see `sqs`. Characters that a header of HTTP cannot hold are
percent-encoded, also where the carrier could hold them, so that a consumer reads every kind in the same way.
"""

import re
from string import ascii_letters, digits, punctuation
from urllib.parse import quote

from gapless.destinations.contract import Delivery
from gapless.domain import EventMode

IDEMPOTENCY_KEY = "idempotency-key"
NAMES = (
    IDEMPOTENCY_KEY,
    "gapless-event-id",
    "gapless-event-key",
    "gapless-event-type",
    "gapless-source",
    "gapless-stream",
    "gapless-via",
    "gapless-occurred-at",
    "gapless-mode",
    "gapless-object",
    "gapless-late",
    "gapless-attempt",
)
"""Every name that can occur."""
SAFE = (ascii_letters + digits + punctuation).replace("%", "")
"""Characters that are not percent-encoded."""
_IS_SAFE = re.compile(f"[{re.escape(SAFE)}]*").fullmatch


def identity_headers(delivery: Delivery) -> dict[str, str]:
    """Return the headers that identify the event and the attempt."""
    headers = {
        IDEMPOTENCY_KEY: delivery.id,
        "gapless-event-id": delivery.id,
        "gapless-event-key": delivery.key,
        "gapless-event-type": delivery.type,
        "gapless-source": delivery.source,
        "gapless-via": delivery.via.value,
        "gapless-occurred-at": delivery.occurred_at.isoformat(),
        "gapless-attempt": str(delivery.attempt),
    }
    if delivery.stream:
        headers["gapless-stream"] = delivery.stream
    if delivery.object_key is not None:
        headers["gapless-object"] = delivery.object_key
    if delivery.late is not None:
        headers["gapless-late"] = delivery.late
    if delivery.livemode is not None:
        headers["gapless-mode"] = EventMode.of(livemode=delivery.livemode).value
    return {name: value if _IS_SAFE(value) else quote(value, safe=SAFE) for name, value in headers.items()}


def repeat_id(destination: str, delivery: Delivery) -> str:
    """Return the id for a broker that drops repeats by itself.

    It drops a retry of an attempt that did arrive, but not what a person sends again (the generation), and not the same
    event of another destination in the same stream or queue.
    """
    return f"{delivery.id}/{destination}/{delivery.generation}"
