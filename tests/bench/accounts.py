"""A pass over the connected accounts of a platform: each is a list of its own, and one rate is granted to all.

The vendor is the fake on a socket of this process; every answer takes as long as one team measured.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from time import perf_counter
from typing import Any

from figures import Bar, matching, spread, table
from stores import Places, opened

from gapless.bootstrap.runtime import make_writer
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources, system_clock, to_us
from gapless.ledger import leases, streams
from gapless.ledger import sources as rows
from gapless.ledger.engine import Store
from gapless.ledger.recorder import Recorder
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.pace import Pace
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.source_run import SourceRun
from gapless.runtime import Runtime
from gapless.settings import PublicSettings
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

HOUR = timedelta(hours=1)
WITHIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    rounds: int = 5
    accounts: int = 1000
    answer_s: float = 0.38
    rate: float = 100.0


QUICK = Plan(rounds=1, accounts=50, answer_s=0.05)


def measure(places: Places, plan: Plan, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rounds; the stores take turns."""
    measured = []
    for number, kind in product(range(1, plan.rounds + 1), places.kinds):
        with places.fresh(kind) as url:
            row = {"round": number, "store": kind, **asyncio.run(_one(url, plan))}
        measured.append(row)
        note(f"round {number}: {kind}: {row['seconds']:.1f} s, at most {row['most_per_s']} requests in a second")
    return measured


async def _one(url: str, plan: Plan) -> dict[str, Any]:
    """One pass over every account, each of which has one event that is missing."""
    fake = FakeProvider(StripeFormat(), faults=Faults(answer_delay_s=plan.answer_s))
    start = system_clock() - HOUR + timedelta(minutes=1)  # a window that is one slice
    for number in range(plan.accounts):
        fake.emit("invoice.paid", stream=f"acct_{number}", occurred_at=start + HOUR / 2, push=False)
    async with fake.serve() as address, opened(url) as store:
        options = StripeOptions(api_key=Secret("sk_live_fake"), connect=True, api_base=address)
        source = await _source(store, Stripe(options), fake.streams(), start)
        began = perf_counter()
        await _pass(store, source, plan.rate)
        seconds = perf_counter() - began
    times = sorted(request.at for request in fake.requests)
    return {
        "accounts": plan.accounts,
        "seconds": round(seconds, 2),
        "requests": len(times),
        "most_per_s": max(bisect_left(times, at + timedelta(seconds=1)) - place for place, at in enumerate(times)),
    }


async def _source(store: Store, provider: Stripe, names: list[str], start: datetime) -> Source:
    source_id = await store.write(
        rows.register_source, name="bench", provider="stripe", mode="hybrid", start=start, now=start
    )
    await store.write(lambda c: [streams.ensure_stream(c, source_id, name) for name in names])
    return Source(id=source_id, name="bench", provider=provider, mode=Mode.HYBRID, start=start, streams_covered=True)


async def _pass(store: Store, source: Source, rate: float) -> None:
    known, metrics = Sources([source]), Metrics("bench")
    writer = make_writer(PublicSettings(), store, Recorder(0, build_route([])), metrics)
    writing = asyncio.create_task(writer.run())
    runtime = Runtime(store=store, writer=writer, clock=system_clock, metrics=metrics, sources=known)
    policy = SourcePolicy(
        pace=Pace(shortest=HOUR, longest=HOUR, adaptive=False),
        lookback=HOUR / 4,
        sweep_every=HOUR * 24,
        slices=4,
        rate=rate,
        capabilities=source.provider.capabilities,
        request_within=timedelta(seconds=60),
        webhook_url="",
        share_account=False,
        repair=False,
    )
    lease = await writer.submit(lambda c: leases.claim(c, source.id, "bench", to_us(system_clock())))
    assert lease is not None
    async with new_client() as client:
        client_of = ProviderClient(client, known, "bench", clock=system_clock, metrics=metrics, rate=rate)
        leased = LeasedSource(runtime=runtime, client=client_of, policy=policy, lease=lease, stopping=asyncio.Event())
        cycle = SourceRun(leased=leased, check_account=False, check_endpoint=False)
        await cycle.run()
    writer.close()
    await writing
    read = await store.read(streams.streams, source_id=source.id)
    behind = [stream.name for stream in read if stream.last_outcome not in ("clean", "found")]
    assert not behind, f"{len(behind)} read were not read to their end, such as {behind[0]!r}"


def tables(measured: list[dict[str, Any]]) -> str:
    """A line for each store."""
    lines = []
    for kind in dict.fromkeys(row["store"] for row in measured):
        mine = matching(measured, {"store": kind})
        figures = [spread(row[name] for row in mine) for name in ("seconds", "requests", "most_per_s")]
        lines.append([kind, mine[0]["accounts"], *figures])
    return table(["connected accounts", "accounts", "seconds", "requests", "most req/s"], lines)


def bars(measured: list[dict[str, Any]], plan: Plan) -> list[Bar]:
    """Within 15 s, and inside what the vendor grants."""
    found = []
    for kind in dict.fromkeys(row["store"] for row in measured):
        mine = matching(measured, {"store": kind})
        seconds, most = spread(row["seconds"] for row in mine), spread(row["most_per_s"] for row in mine)
        found.append(Bar(name=f"accounts, {kind}: seconds", wanted=WITHIN_S, got=seconds, at_most=True))
        found.append(Bar(name=f"accounts, {kind}: requests in a second", wanted=plan.rate, got=most, at_most=True))
    return found
