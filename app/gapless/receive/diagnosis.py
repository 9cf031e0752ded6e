"""Finds the reason of a refused webhook by trying the usual ones, so that nobody has to guess. Pure."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec

from gapless.receive import webhook
from gapless.receive.carried_secrets import is_digest
from gapless_reconcilers.kit.contract import Provider, Reply, WebhookRequest

SHIFTS: Final = tuple(timedelta(seconds=300 * 2**power) for power in range(13))
"""The clock offsets that are tried, up to two weeks, to find one at which the signature is in time."""
PRECISION: Final = timedelta(seconds=1)
CLOCK_HINTS: Final = {-1: "our clock is ahead, or it was held up on the way", 1: "our clock is behind"}
REWRITTEN: Final = "let nothing between the provider and us rewrite bodies"
NOT_OURS: Final = "no secret that is configured, of no source, is the one in its header"
REENCODED_MAX_BYTES: Final = 1 << 20
"""Longer bodies are not parsed and encoded again."""


def diagnose(providers: Mapping[str, Provider], name: str, request: WebhookRequest, received: datetime) -> str:
    """Return what was wrong with `request`, sent to source `name` at `received`; "" if no cause was found.

    `providers` are those of all sources by name, with the secrets they have now: a webhook that verifies now can be
    released.
    """
    provider = providers[name]
    if _verifies(provider, request, received):
        return "it verifies now: gapless quarantine release records it"
    known = provider.capabilities
    twins = known.twin_headers if known.twin_headers and _has(request, known.twin_headers[0]) else ()
    missing = [each for each in twins or known.signature_headers if not _has(request, each)]
    if missing:
        return f"the header {missing[0]} is missing: did the provider send this, and does a proxy drop headers?"
    for direction, words in CLOCK_HINTS.items():
        off = _off_by(provider, request, received, direction)
        if off is not None:
            return f"the signature's time is off by {off.total_seconds():.0f} s: {words}"
    for how, body in _rewritings(request.body):
        if _verifies(provider, msgspec.structs.replace(request, body=body), received):
            return f"the body was {how} on the way: {REWRITTEN}"
    for other, theirs in providers.items():
        if other != name and theirs.kind == provider.kind and _verifies(theirs, request, received):
            return f"it is signed for source {other}: its endpoint points to the wrong path"
    carried = next((name.decode() for name, value in request.headers if is_digest(value)), None)
    return f"{NOT_OURS} {carried}: compare it with the one that the provider has" if carried else ""


def _verifies(provider: Provider, request: WebhookRequest, now: datetime) -> bool:
    """Return True if the webhook would be accepted. One that needs evidence is not: nothing is fetched here."""
    return isinstance(webhook.read_webhook(provider, request, now), Reply)


def _has(request: WebhookRequest, header: str) -> bool:
    return any(name == header.encode() for name, _ in request.headers)


def _off_by(provider: Provider, request: WebhookRequest, received: datetime, direction: int) -> timedelta | None:
    """Return by how much, to the second, it came too late (-1) or too early (1); None if no offset helps."""
    for before, shift in pairwise((timedelta(0), *SHIFTS)):
        if _verifies(provider, request, received + direction * shift):
            return _narrow(lambda by: _verifies(provider, request, received + direction * by), before, shift)
    return None


def _narrow(fits: Callable[[timedelta], bool], low: timedelta, high: timedelta) -> timedelta:
    """Return the smallest offset that fits, to the second; `low` does not fit and `high` does."""
    while high - low > PRECISION:
        middle = low + (high - low) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _rewritings(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done to the body, the body before it) for the usual rewritings of proxies and frameworks."""
    stripped = body.strip()
    if stripped != body:
        yield "padded with blanks", stripped
    yield "cut at its last newline", body + b"\n"
    yield "given other newlines", body.replace(b"\r\n", b"\n")
    if len(body) > REENCODED_MAX_BYTES:
        return
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    for ascii_only in (False, True):
        for separators in ((",", ":"), (", ", ": ")):
            yield (
                "re-encoded",
                json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode(errors="replace"),
            )
        yield "re-encoded", json.dumps(value, ensure_ascii=ascii_only, indent=2).encode(errors="replace")
