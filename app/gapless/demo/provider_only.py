"""The provider alone, for people who test their own set-up."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from gapless.demo.configuration import AloneOptions, DemoSecrets
from gapless.demo.report import SUCCESS
from gapless.demo.run import serve_provider
from gapless.demo.scenario import BEAT_S, TYPES
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

TELL_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCounts:
    """How the provider stands: events, webhooks that were answered 2xx, API requests."""

    elapsed_s: float
    events: int
    arrived: int
    requests: int


@asynccontextmanager
async def _open(options: AloneOptions, own: DemoSecrets) -> AsyncIterator[tuple[FakeProvider, str]]:
    """The provider and its base URL. Raises `PortTaken`."""
    provider = FakeProvider(StripeFormat(api_key=own.api_key, livemode=False), seed=options.seed)
    if options.webhook_url is not None:
        provider.add_endpoint(options.webhook_url, secret=own.webhook)
    async with serve_provider(provider, options.port) as base_url:
        yield provider, base_url


async def run(
    options: AloneOptions,
    own: DemoSecrets,
    *,
    stop: asyncio.Event,
    announce: Callable[[str], None],
    tell: Callable[[ProviderCounts], None],
) -> None:
    """Emit events and lose webhooks until the time is over or `stop` is set. Raises `PortTaken`."""
    async with _open(options, own) as (provider, base_url):
        announce(base_url)
        began_s, next_s = time.monotonic(), 0.0
        while not stop.is_set():
            elapsed_s = time.monotonic() - began_s
            if options.length_s is not None and elapsed_s >= options.length_s:
                return
            provider.faults = _faults(options, elapsed_s)
            while len(provider.events) < elapsed_s * options.rate:
                provider.emit(TYPES[len(provider.events) % len(TYPES)])
            if elapsed_s >= next_s:
                tell(_told(provider, elapsed_s))
                next_s += TELL_EVERY_S
            await asyncio.sleep(BEAT_S)


def _faults(options: AloneOptions, elapsed_s: float) -> Faults:
    is_out = options.outage is not None and options.outage.is_on(elapsed_s)
    return replace(options.faults, outage=is_out)


def _told(provider: FakeProvider, elapsed_s: float) -> ProviderCounts:
    return ProviderCounts(
        elapsed_s=elapsed_s,
        events=len(provider.events),
        arrived=len({push.event.key for push in provider.pushes if push.status in SUCCESS}),
        requests=len(provider.requests),
    )
