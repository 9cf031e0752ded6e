"""The server under load, as a process of its own: `python tests/bench/receiver.py VARIANT STORE_URL`.

`gapless` is the receive road as the daemon wires it, with one destination that is owed every event and
nobody who delivers. `bare` is the same application and handler with a writer that stores nothing: what
verifying, reading and answering cost. `session` is what a team writes first, see `session.py`. Prints
its address, then serves on one core until it is terminated.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import machine
import session

from gapless.bootstrap.destinations import make_destination
from gapless.bootstrap.runtime import make_writer
from gapless.bootstrap.store import open_configured_store
from gapless.cli.commands.serve import run_loop
from gapless.connections.register import Connections
from gapless.daemon.listeners import Listener
from gapless.daemon.process import receive_options
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources, system_clock
from gapless.ledger import destinations
from gapless.ledger import sources as rows
from gapless.ledger.engine import Store
from gapless.ledger.recorder import Recorder, Webhook
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import build_app
from gapless.runtime import Runtime
from gapless.settings import DestinationSettings, PublicSettings, SecretRef, Settings, StoreSettings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Secret

SECRET: Final = "whsec_of_the_bench"
PATH: Final = "/webhooks/bench"
GAPLESS, BARE, SESSION = "gapless", "bare", "session"
VARIANTS = (GAPLESS, BARE, SESSION)


class NoStore:
    """A writer that has stored everything at once, because it stores nothing."""

    queued = queued_bytes = 0
    queue_max_bytes = PublicSettings().queue_max_bytes

    def record(self, webhook: Webhook, size: int, answer_by: float) -> asyncio.Future[int]:  # noqa: ARG002 - as the writer's
        """All events are new."""
        future = asyncio.get_running_loop().create_future()
        future.set_result(len(webhook))
        return future

    async def submit_idle(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """What was refused is not kept."""

    async def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> int:  # noqa: ARG002 - as the writer's
        """The id of a stream."""
        return 1


class Nobody:
    """A sender that is never asked."""

    async def send(self, delivery: object) -> Any:
        raise AssertionError(f"nobody delivers here, and yet {delivery!r} came")

    async def close(self) -> None:
        pass


async def serve(variant: str, url: str) -> None:
    """Serve until SIGTERM."""
    provider = registry.build("stripe", {"api_key": Secret("rk_test_bench"), "webhook_secret": Secret(SECRET),
                                         "livemode": False})  # fmt: skip
    if variant == SESSION:
        await _serve(session.build_app(url, provider, PATH))
        return
    settings = Settings(store=StoreSettings(url=SecretRef(value=Secret(url))))
    store, now = open_configured_store(settings), system_clock()
    start = now - timedelta(days=1)
    source_id = await store.write(
        lambda c: rows.register_source(c, "bench", provider.kind, Mode.HYBRID.value, start, now)
    )
    sources = Sources([Source(id=source_id, name="bench", provider=provider, mode=Mode.HYBRID, start=start)])
    metrics = Metrics("bench")
    writer: Any = await _writer(store, metrics) if variant == GAPLESS else NoStore()
    runtime = Runtime(store=store, writer=writer, clock=system_clock, metrics=metrics, sources=sources)
    receiver = make_receiver(runtime, options=receive_options(Settings()))
    async with asyncio.TaskGroup() as group:
        if variant == GAPLESS:
            group.create_task(writer.run())
        keeping = asyncio.create_task(receiver.quarantine.run())
        await _serve(build_app(receiver))
        keeping.cancel()
        if variant == GAPLESS:
            writer.close()
    await store.close()


async def _writer(store: Store, metrics: Metrics) -> Writer:
    destination_id = await store.write(
        lambda c: destinations.register_destination(c, "app", system_clock() - timedelta(1))
    )
    route = build_route([make_destination(DestinationSettings(name="app"), destination_id, 0, Nobody())])
    return make_writer(PublicSettings(), store, Recorder(0, route), metrics)


async def _serve(app: Any) -> None:
    listener = Listener(app, "127.0.0.1", 0, Connections("public", Metrics("bench")))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, listener.stop)
    async with asyncio.TaskGroup() as group:
        group.create_task(listener.run())
        await listener.started()
        sys.stdout.write(f"{listener.address}{PATH}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    machine.pin(machine.SERVER_CORE)
    run_loop(serve(sys.argv[1], sys.argv[2]))
