"""Sends events of the live stream to a handler that somebody develops, as a destination would."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gapless.bootstrap.senders import make_handler_sender
from gapless.bootstrap.sources import make_source
from gapless.cli.stream_client import StreamEvent
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    Failed,
    FailureReason,
    Result,
    SecretReader,
    Sender,
)
from gapless.domain import EventMode, Sources, system_clock
from gapless.settings import SecretUnavailable, Settings, build_provider
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

STANDARD, PROVIDER, NONE = "standard", "provider", "none"
"""Values of a destination's option `signature`."""
ATTEMPTS = 4
FIRST_WAIT_S = 1.0
ANSWER_WITHIN_S = 30.0


class GivenSecret(SecretReader):
    """A secret that is in memory."""

    __slots__ = ("_secret",)

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def read(self) -> Secret:
        """Return it."""
        return self._secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """One attempt, for people."""

    signature: str
    result: Result
    took_ms: int
    again_in_s: float | None
    """None: it is the last one."""


@dataclass(slots=True, kw_only=True)
class Forwarder:
    """Sends events to `url`, signed as the vendor signs where its source is configured here, else as a standard."""

    url: str
    secret: Secret
    sources: Sources
    """The sources whose provider can sign."""
    signature: str | None = None
    """One signature for all; None: the provider's, and the standard one where that cannot be."""
    first_wait_s: float = FIRST_WAIT_S
    _senders: dict[str, Sender] = field(default_factory=dict, init=False)
    _unsignable: set[str] = field(default_factory=set, init=False)

    async def forward(self, event: StreamEvent, tell: Callable[[Attempted], None]) -> bool:
        """Try until the handler takes the event, a few times; tell of each attempt. Return True if it was taken."""
        wait_s = self.first_wait_s
        for attempt in range(1, ATTEMPTS + 1):
            signature, began = self._signature_of(event), time.monotonic()
            result = await self._send(event, attempt, signature)
            if self._falls_back(event, result):
                signature = STANDARD
                result = await self._send(event, attempt, signature)
            is_last = attempt == ATTEMPTS or not isinstance(result, Failed) or result.permanent
            took_ms = round((time.monotonic() - began) * 1000)
            again_in_s = None if is_last else wait_s
            tell(Attempted(signature=signature, result=result, took_ms=took_ms, again_in_s=again_in_s))
            if is_last:
                return isinstance(result, Delivered)
            await asyncio.sleep(wait_s)
            wait_s *= 2
        return False

    async def close(self) -> None:
        """Close the connections."""
        for sender in self._senders.values():
            await sender.close()

    def _signature_of(self, event: StreamEvent) -> str:
        if self.signature is not None:
            return self.signature
        return PROVIDER if event.source in self.sources and event.source not in self._unsignable else STANDARD

    def _falls_back(self, event: StreamEvent, result: Result) -> bool:
        """Return True if the provider cannot sign for that source, and nobody wants its signature by name."""
        cannot = isinstance(result, Failed) and result.reason is FailureReason.CANNOT_RENDER
        if not cannot or self._signature_of(event) != PROVIDER or self.signature is not None:
            return False
        self._unsignable.add(event.source)
        return True

    async def _send(self, event: StreamEvent, attempt: int, signature: str) -> Result:
        body = event.body
        if body is None:
            detail = "its payload was pruned, or it was imported without one"
            return Failed(reason=FailureReason.NO_PAYLOAD, detail=detail, permanent=True)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self.sender(signature).send(_delivery(event, body, attempt))
        except TimeoutError:
            return Failed(reason=FailureReason.TIMEOUT, detail=f"no answer within {ANSWER_WITHIN_S:g} s")

    def sender(self, signature: str) -> Sender:
        """Return the sender with that signature. Raises `DestinationInvalid`."""
        if signature not in self._senders:
            secret = GivenSecret(self.secret)
            self._senders[signature] = make_handler_sender(self.url, signature, secret, self.sources, system_clock)
        return self._senders[signature]


def signing_sources(settings: Settings, environ: Mapping[str, str]) -> Sources:
    """Return the configured sources whose secrets are at hand, so that their providers can sign."""
    found = []
    for each in settings.sources:
        try:
            found.append(make_source(each, build_provider(each, environ), 0, system_clock()))
        except (SecretUnavailable, OptionsInvalid):
            continue
    return Sources(found)


def _delivery(event: StreamEvent, body: bytes, attempt: int) -> Delivery:
    return Delivery(
        id=event.id,
        key=event.key,
        source=event.source,
        stream=event.stream,
        type=event.type,
        occurred_at=event.occurred_at,
        recorded_at=event.recorded_at,
        via=event.via,
        payload=body,
        headers=event.headers,
        attempt=attempt,
        released=True,
        livemode=None if event.mode is None else event.mode == EventMode.LIVE,
    )
