"""Starts the parts of the demo (provider, consumer, daemon) on free ports and runs the scenario with them.

The files are in a directory that is removed afterwards.
"""

import tempfile
from asyncio import Event
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import httpx

from gapless.demo.configuration import (
    HOST,
    Addresses,
    DemoOptions,
    DemoSecrets,
    PortTaken,
    daemon_config,
    daemon_environ,
    plan_phases,
    prepare_store,
    reserve,
)
from gapless.demo.consumer import Consumer
from gapless.demo.daemon_process import DaemonProcess
from gapless.demo.report import DemoReport, DemoSnapshot
from gapless.demo.scenario import DemoScenario
from gapless_reconcilers.testing.fake import FakeProvider, utc_now
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.http_server import serve_http

RETRIES_S = (0.5, 1.0)
"""The provider sends each webhook three times in two seconds. Stripe goes on for three days, then it gives up too."""
STATUS_TIMEOUT_S = 5.0


@asynccontextmanager
async def open_scenario(
    options: DemoOptions,
    *,
    command: Sequence[str],
    environ: Mapping[str, str],
    stop: Event,
    show: Callable[[DemoSnapshot], None],
    announce: Callable[[Addresses, Path], None],
) -> AsyncIterator[DemoScenario]:
    """Start everything and yield the scenario. `announce` is called with the addresses and the directory before that.

    `command` starts a daemon that is configured by its environment. Raises `PortTaken`, `StoreUnfit` and `DaemonEnded`.
    """
    demo_secrets = DemoSecrets()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(working_directory(keep=options.keep))
        provider = FakeProvider(
            StripeFormat(api_key=demo_secrets.api_key, livemode=False), seed=options.seed, retries_s=RETRIES_S
        )
        consumer = Consumer(secret=demo_secrets.delivery, clock=utc_now, chance=Random(options.seed))  # noqa: S311 - repeatable
        addresses = Addresses(
            provider=await stack.enter_async_context(serve_provider(provider, options.ports.provider)),
            consumer=await stack.enter_async_context(serve_http(consumer.answer, host=HOST, port=0, clock=utc_now)),
            public=f"http://{HOST}:{stack.enter_context(reserve(options.ports.webhooks, '--webhook-port'))}",
            private=f"http://{HOST}:{stack.enter_context(reserve(options.ports.console, '--console-port'))}",
        )
        provider.add_endpoint(addresses.webhook_url, secret=demo_secrets.webhook)
        config = directory / "gapless.toml"
        config.write_text(daemon_config(addresses))
        store = options.store or f"sqlite:///{directory / 'gapless.db'}"
        await prepare_store(store)
        announce(addresses, directory)
        daemon = DaemonProcess(
            command=command,
            environ=daemon_environ(environ, demo_secrets, config, store),
            address=addresses.private,
            log=directory / "daemon.log",
            client=await stack.enter_async_context(httpx.AsyncClient(timeout=STATUS_TIMEOUT_S, trust_env=False)),
        )
        stack.push_async_callback(daemon.stop)
        await daemon.start()
        plan = plan_phases(options.length_s, drop=options.faults.drop, kill=options.kill)
        yield DemoScenario(
            options=options, plan=plan, provider=provider, consumer=consumer, daemon=daemon, stop=stop, show=show
        )


@asynccontextmanager
async def serve_provider(provider: FakeProvider, port: int) -> AsyncIterator[str]:
    """Serve the provider's API on `port` and yield its base URL. Raises `PortTaken`."""
    async with AsyncExitStack() as stack:
        try:
            base_url = await stack.enter_async_context(provider.serve(host=HOST, port=port))
        except OSError as error:
            raise PortTaken(port, "--provider-port") from error
        yield base_url


@contextmanager
def working_directory(*, keep: bool) -> Iterator[Path]:
    """Yield a new directory, which is removed at the end unless `keep`."""
    if keep:
        yield Path(tempfile.mkdtemp(prefix="gapless-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="gapless-demo-", ignore_cleanup_errors=True) as path:
        yield Path(path)


async def run(
    options: DemoOptions,
    *,
    command: Sequence[str],
    environ: Mapping[str, str],
    stop: Event,
    show: Callable[[DemoSnapshot], None],
    announce: Callable[[Addresses, Path], None],
) -> DemoReport:
    """Run the demo from the first event to the final comparison. Raises `PortTaken`, `StoreUnfit` and `DaemonEnded`."""
    opening = open_scenario(options, command=command, environ=environ, stop=stop, show=show, announce=announce)
    async with opening as scenario:
        return await scenario.play()
