"""One reading of the whole feed, as a process of its own, so that its memory can be told (`tests/bench/reading.py`).

With a store: a pass as the daemon makes it, less the health check. Without: the same requests over the
same client, each page parsed by the provider, and nothing compared. Prints one JSON object.
"""

import argparse
import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import machine
import msgspec
import uvloop
from sqlalchemy import select

from gapless.bootstrap.runtime import make_writer
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources, cut, from_us, system_clock, to_us
from gapless.ledger import leases
from gapless.ledger import sources as rows
from gapless.ledger.engine import Store, open_store
from gapless.ledger.recorder import Recorder
from gapless.ledger.tables import PASS
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.pace import Pace
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.source_run import SourceRun
from gapless.runtime import Runtime
from gapless.settings import PublicSettings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import OWN_STREAM, Provider, Secret, Window

NAME: Final = "bench"
NEVER: Final = timedelta(days=36_500)
HOUR: Final = timedelta(hours=1)
UNLIMITED: Final = 1e6


def provider_at(address: str) -> Provider:
    """Stripe, at the feed's address."""
    return registry.build("stripe", {"api_key": Secret("rk_test_bench"), "livemode": False, "api_base": address})


async def list_only(provider: Provider, window: Window, slices: int) -> int:
    """Fetch and parse every page of the window; returns how many events there were."""
    slots, listed = asyncio.Semaphore(slices), 0
    client = new_client()

    async def walk(part: Window) -> None:
        nonlocal listed
        async with slots:
            request = provider.first_request(OWN_STREAM, part)
            while request is not None:
                response = await client.send(request, auth=provider.auth())
                page = provider.read_page(request, response, OWN_STREAM, part)
                listed += len(page.events)
                request = page.next

    async with client, asyncio.TaskGroup() as group:
        for part in cut(window, provider.capabilities.resolution):
            group.create_task(walk(part))
    return listed


async def make_pass(provider: Provider, start: datetime, slices: int, rate: float, store: Store) -> tuple[int, int]:
    """A turn of the source; returns how many events it listed and found."""
    known = Sources([await register(store, provider, start)])
    source, metrics = known[NAME], Metrics(NAME)
    writer = make_writer(PublicSettings(), store, Recorder(0, build_route([])), metrics)
    writing = asyncio.create_task(writer.run())
    runtime = Runtime(store=store, writer=writer, clock=system_clock, metrics=metrics, sources=known)
    policy = SourcePolicy(
        pace=Pace(shortest=HOUR, longest=HOUR, adaptive=False),
        lookback=HOUR,
        sweep_every=NEVER,
        slices=slices,
        rate=rate,
        capabilities=provider.capabilities,
        request_within=timedelta(seconds=60),
        webhook_url="",
        share_account=False,
        repair=False,
    )
    lease = await writer.submit(lambda c: leases.claim(c, source.id, NAME, to_us(system_clock())))
    assert lease is not None
    async with new_client() as client:
        client_of = ProviderClient(client, known, NAME, clock=system_clock, metrics=metrics, rate=rate)
        leased = LeasedSource(runtime=runtime, client=client_of, policy=policy, lease=lease, stopping=asyncio.Event())
        await SourceRun(leased=leased, check_account=False, check_endpoint=False).run()
    writer.close()
    await writing
    newest = select(PASS).where(PASS.c.source_id == source.id).order_by(PASS.c.id.desc()).limit(1)
    done = await store.read(lambda c: c.execute(newest).one())
    assert done.state == "finished", done
    return int(done.listed), int(done.found)


async def register(store: Store, provider: Provider, start: datetime) -> Source:
    """The source, made if it is new."""
    source_id = await store.write(
        lambda c: rows.register_source(c, NAME, provider.kind, Mode.HYBRID.value, start, start)
    )
    return Source(id=source_id, name=NAME, provider=provider, mode=Mode.HYBRID, start=start)


async def read(asked: argparse.Namespace) -> dict[str, float]:
    """Read everything, and say how fast and at what cost."""
    provider, start = provider_at(asked.feed), datetime.fromtimestamp(asked.start, UTC)
    store = open_store(asked.store) if asked.store else None
    began, busy = time.perf_counter(), time.process_time()
    if store is None:
        end = from_us(to_us(system_clock()) // 1_000_000 * 1_000_000) - provider.capabilities.grace
        listed, found = await list_only(provider, Window(start=start, end=end), asked.slices), 0
    else:
        listed, found = await make_pass(provider, start, asked.slices, asked.rate, store)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    if store is not None:
        await store.close()
    return {
        "listed": listed,
        "found": found,
        "seconds": round(seconds, 3),
        "events_per_s": round(listed / seconds, 1),
        "cores": round(busy / seconds, 2),
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    """The most memory that this process had resident, in megabytes of 10^6 bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--feed", required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--slices", type=int, required=True)
    parser.add_argument("--rate", type=float, default=UNLIMITED)
    parser.add_argument("--store", default="")
    asked = parser.parse_args()
    machine.pin(machine.SERVER_CORE)

    async def told() -> None:
        print(msgspec.json.encode(await read(asked)).decode())  # noqa: T201 - the result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(told())


if __name__ == "__main__":
    main()
