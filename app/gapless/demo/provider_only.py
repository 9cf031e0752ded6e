"""The provider without a daemon, for people who test their own set-up."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from gapless.demo.configuration import DemoSecrets, ProviderOnlyOptions
from gapless.demo.report import SUCCESS
from gapless.demo.run import serve_provider
from gapless.demo.scenario import TICK_S, TYPES
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

COUNTS_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCounts:
    """The numbers so far: events, webhooks that were answered 2xx, API requests."""

    elapsed_s: float
    events: int
    arrived: int
    requests: int


@asynccontextmanager
async def _open(options: ProviderOnlyOptions, demo_secrets: DemoSecrets) -> AsyncIterator[tuple[FakeProvider, str]]:
    """Serve the provider; yield it and its base URL. Raises `PortTaken`."""
    provider = FakeProvider(StripeFormat(api_key=demo_secrets.api_key, livemode=False), seed=options.seed)
    if options.webhook_url is not None:
        provider.add_endpoint(options.webhook_url, secret=demo_secrets.webhook)
    async with serve_provider(provider, options.port) as base_url:
        yield provider, base_url


async def run(
    options: ProviderOnlyOptions,
    demo_secrets: DemoSecrets,
    *,
    stop: asyncio.Event,
    announce: Callable[[str], None],
    tell: Callable[[ProviderCounts], None],
) -> None:
    """Emit events and lose webhooks until the time is over or `stop` is set. Raises `PortTaken`."""
    async with _open(options, demo_secrets) as (provider, base_url):
        announce(base_url)
        started_s, next_s = time.monotonic(), 0.0
        while not stop.is_set():
            elapsed_s = time.monotonic() - started_s
            if options.length_s is not None and elapsed_s >= options.length_s:
                return
            provider.faults = _faults(options, elapsed_s)
            while len(provider.events) < elapsed_s * options.rate:
                provider.emit(TYPES[len(provider.events) % len(TYPES)])
            if elapsed_s >= next_s:
                tell(_counts(provider, elapsed_s))
                next_s += COUNTS_EVERY_S
            await asyncio.sleep(TICK_S)


def _faults(options: ProviderOnlyOptions, elapsed_s: float) -> Faults:
    is_out = options.outage is not None and options.outage.is_on(elapsed_s)
    return replace(options.faults, outage=is_out)


def _counts(provider: FakeProvider, elapsed_s: float) -> ProviderCounts:
    return ProviderCounts(
        elapsed_s=elapsed_s,
        events=len(provider.events),
        arrived=len({push.event.key for push in provider.pushes if push.status in SUCCESS}),
        requests=len(provider.requests),
    )
