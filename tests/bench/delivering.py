"""Delivers what waits in a ledger, as a process of its own (`tests/bench/delivering.py`), and prints one JSON object.

With a store: the dispatcher of the daemon with one destination. Without: the same client posts the same body, and
nothing is claimed, signed or settled.
"""

import argparse
import asyncio
import json
import resource
import time
from typing import Any, Final

import aiohttp
import httpx
import machine
import uvloop

from gapless.bootstrap.destinations import make_destination
from gapless.bootstrap.runtime import make_writer
from gapless.daemon.heap import settle_heap
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.routing import build_route
from gapless.destinations.contract import SenderContext
from gapless.destinations.http import DeliverySignature, HttpOptions, HttpSender
from gapless.destinations.http.addresses import AddressRule
from gapless.destinations.http.client import HandlerClient
from gapless.domain import Sources, system_clock
from gapless.ledger.engine import open_store
from gapless.ledger.recorder import Recorder
from gapless.metrics import Metrics
from gapless.runtime import Runtime
from gapless.settings import DestinationSettings, PublicSettings, SecretRef
from gapless_reconcilers.kit.contract import Secret

NAME: Final = "bench"
SIZE: Final = 2048
LOCAL: Final = ("127.0.0.1",)
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WARM_UP_S: Final = 1.0


def body() -> bytes:
    """A payload of two kilobytes."""
    return b'{"id": "evt_0", "filler": "%b"}' % (b"x" * (SIZE - 30))


async def bare(endpoint: str, at_once: int, seconds: float) -> dict[str, Any]:
    """Post the body over and over."""
    client = HandlerClient(httpx.URL(endpoint), AddressRule(LOCAL), at_once)
    headers, sent, data = {"content-type": "application/json"}, 0, body()
    until = time.monotonic() + seconds

    async def post() -> None:
        nonlocal sent
        while time.monotonic() < until:
            response: aiohttp.ClientResponse = await client.post(headers, data)
            await response.read()
            sent += response.ok

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(post())
    await client.close()
    return {"delivered": sent}


async def deliver(store_url: str, endpoint: str, at_once: int, seconds: float) -> dict[str, Any]:
    """Deliver from the ledger for so long; returns what was delivered, as the metrics count it."""
    store, metrics, known = open_store(store_url), Metrics(NAME), Sources()
    writer = make_writer(PublicSettings(), store, Recorder(0, build_route([])), metrics)
    writing = asyncio.create_task(writer.run())
    runtime = Runtime(store=store, writer=writer, clock=system_clock, metrics=metrics, sources=known)
    options = HttpOptions(
        url=endpoint, signature=DeliverySignature.STANDARD, secret=SecretRef(value=Secret(SECRET)), allow=LOCAL
    )
    settings = DestinationSettings(name=NAME, concurrency=at_once)
    context = SenderContext(
        name=NAME,
        sources=known,
        clock=system_clock,
        concurrency=at_once,
        releases=frozenset(),
        timeout=settings.timeout,
    )
    destination = make_destination(settings, 1, 0, HttpSender(options, context))
    dispatcher = Dispatcher([destination], runtime)
    settle_heap()
    delivering = asyncio.create_task(dispatcher.run())
    await asyncio.sleep(WARM_UP_S)
    counter = metrics.deliveries.labels(NAME, "delivered")
    before, began, cpu = counter._value.get(), time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    found = {
        "delivered": counter._value.get() - before,
        "seconds": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu,
    }
    dispatcher.stop()
    await delivering
    writer.close()
    await writing
    await store.close()
    return found


async def main() -> None:
    """Run once, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--store", default="")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    asked = parser.parse_args()
    began, cpu = time.monotonic(), time.process_time()
    if asked.store:
        found = await deliver(asked.store, asked.endpoint, asked.at_once, asked.seconds)
    else:
        found = await bare(asked.endpoint, asked.at_once, asked.seconds)
    found = {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - cpu, **found}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({**found, "peak_mb": peak_mb}))  # noqa: T201 - it is what the process is for


if __name__ == "__main__":
    machine.pin(machine.SERVER_CORE)
    uvloop.run(main())
