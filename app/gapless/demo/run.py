"""Sets the stage: the provider, the consumer and the daemon on free ports, in a directory that goes afterwards."""

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
"""The provider tries each webhook three times in two seconds. Stripe goes on for three days; then it is lost too."""
ASK_TIMEOUT_S = 5.0


@asynccontextmanager
async def set_stage(
    options: DemoOptions,
    *,
    command: Sequence[str],
    environ: Mapping[str, str],
    stop: Event,
    show: Callable[[DemoSnapshot], None],
    announce: Callable[[Addresses, Path], None],
) -> AsyncIterator[DemoScenario]:
    """The stage with everything running; `announce` is told the addresses and the directory before the daemon starts.

    `command` starts a daemon that is configured by its environment. Raises `PortTaken`, `StoreUnfit` and `DaemonEnded`.
    """
    own = DemoSecrets()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(working_directory(keep=options.keep))
        provider = FakeProvider(
            StripeFormat(api_key=own.api_key, livemode=False), seed=options.seed, retries_s=RETRIES_S
        )
        consumer = Consumer(secret=own.delivery, clock=utc_now, chance=Random(options.seed))  # noqa: S311 - repeatable
        addresses = Addresses(
            provider=await stack.enter_async_context(serve_provider(provider, options.ports.provider)),
            consumer=await stack.enter_async_context(serve_http(consumer.answer, host=HOST, port=0, clock=utc_now)),
            public=f"http://{HOST}:{stack.enter_context(reserve(options.ports.webhooks, '--webhook-port'))}",
            private=f"http://{HOST}:{stack.enter_context(reserve(options.ports.console, '--console-port'))}",
        )
        provider.add_endpoint(addresses.webhook_url, secret=own.webhook)
        config = directory / "gapless.toml"
        config.write_text(daemon_config(addresses))
        store = options.store or f"sqlite:///{directory / 'gapless.db'}"
        await prepare_store(store)
        announce(addresses, directory)
        daemon = DaemonProcess(
            command=command,
            environ=daemon_environ(environ, own, config, store),
            address=addresses.private,
            log=directory / "daemon.log",
            client=await stack.enter_async_context(httpx.AsyncClient(timeout=ASK_TIMEOUT_S, trust_env=False)),
        )
        stack.push_async_callback(daemon.stop)
        await daemon.start()
        script = plan_phases(options.length_s, drop=options.faults.drop, kill=options.kill)
        yield DemoScenario(
            options=options, script=script, provider=provider, consumer=consumer, daemon=daemon, stop=stop, show=show
        )


@asynccontextmanager
async def serve_provider(provider: FakeProvider, port: int) -> AsyncIterator[str]:
    """The provider's API on `port`; yields its base URL. Raises `PortTaken`."""
    async with AsyncExitStack() as stack:
        try:
            base_url = await stack.enter_async_context(provider.serve(host=HOST, port=port))
        except OSError as error:
            raise PortTaken(port, "--provider-port") from error
        yield base_url


@contextmanager
def working_directory(*, keep: bool) -> Iterator[Path]:
    """A fresh directory, removed at the end unless it is kept."""
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
    """Play the demo from the first event to the verdict. Raises `PortTaken`, `StoreUnfit` and `DaemonEnded`."""
    setting = set_stage(options, command=command, environ=environ, stop=stop, show=show, announce=announce)
    async with setting as stage:
        return await stage.play()
