"""The daemon beside the simulation: both read the same days, with the same events, lags, delays and lost webhooks.

The daemon is the real one, from the scheduler's tick to the ledger, against the fake Stripe. Only its clock is told: it
is set to the next tick at which something can be due, and to each webhook. What `recovery` says of a month is believed
because the two agree here.
"""

import asyncio
import math
import random
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx
from figures import Bar, spread, table
from recovery import (
    BEGAN,
    DAY,
    HOUR,
    LAG_P999_S,
    NEVER,
    REQUEST_S,
    RHYTHMS,
    SHARES,
    SWEEP_EVERY,
    VENDORS,
    Calendar,
    Flow,
    Simulation,
    at,
    make_flow,
    seconds_of,
    share_of,
    spans,
)
from sqlalchemy import select
from stores import SQLITE, Places, opened

from gapless.daemon.maintenance import BEAT_EVERY
from gapless.domain import from_us, to_us
from gapless.ledger import budgets, looks, silence, sources
from gapless.ledger.tables import EVENT
from gapless.reconcile.heartbeat import LONGEST
from gapless.reconcile.pace import Pace
from gapless.reconcile.scheduler import TICK_S, Scheduler
from gapless_reconcilers.providers.stripe import Stripe
from gapless_reconcilers.testing.fake.event_store import FakeEvent

sys.path.append(str(Path(__file__).parents[1] / "support"))
from world import HASTY, SECRET, Daemon, FakeClock, InProcess, World, new_fake

WANTED: Final = 0.2
"""The share by which daemon and simulation may differ."""
CHARGE, OTHER = "charge.succeeded", "invoice.paid"
WEBHOOKS: Final = "/webhooks/acme"


@dataclass(frozen=True, kw_only=True)
class Calm(Calendar):
    """Days in which only single webhooks are lost."""

    @cached_property
    def downs(self) -> list[tuple[float, float]]:
        return []

    @cached_property
    def partial(self) -> list[tuple[float, float]]:
        return []

    @cached_property
    def off(self) -> tuple[float, float]:
        return NEVER, NEVER

    @cached_property
    def spans(self) -> list[tuple[float, float]]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An account that both read."""

    vendor: str
    rhythm: str
    days: float
    lost: float
    """The share of webhooks that are lost."""
    accounts: int = 1
    """How many such accounts are read, one after the other; their losses are taken together."""


CASES: Final = (
    Case(vendor="Stripe", rhythm="shop", days=1, lost=0.05),
    Case(vendor="Stripe floor", rhythm="shop", days=4, lost=0.03, accounts=4),
    Case(vendor="Stripe floor", rhythm="quiet", days=15, lost=0.3),
)
QUICK: Final = (Case(vendor="Stripe floor", rhythm="quiet", days=2, lost=0.2),)


@dataclass(frozen=True, slots=True)
class Sent:
    """An event, and when its webhook comes; infinity: never."""

    occurred: float
    arrives: float
    place: int


def events_of(flow: Flow) -> list[Sent]:
    """Return all events of a flow, by time of occurrence."""
    came = zip(flow.arrived_occurred, flow.arrived, flow.arrived_place, strict=True)
    lost = (Sent(loss.occurred, NEVER, loss.place) for loss in flow.losses)
    return sorted([*(Sent(*each) for each in came), *lost], key=lambda each: each.occurred)


@dataclass(kw_only=True)
class Live:
    """The daemon, on a clock that jumps to where something may happen."""

    daemon: Daemon
    scheduler: Scheduler
    arrivals: list[tuple[float, FakeEvent]]
    """The webhooks that come, the first one last."""
    clock: FakeClock
    flushed: float = 0.0
    heard: dict[int, int] = field(default_factory=dict)

    async def run(self, seconds: float) -> None:
        """Run until that second."""
        async with asyncio.TaskGroup() as group:
            while (now := seconds_of(self.clock())) < seconds:
                await self.scheduler._tick(group)
                if self.scheduler._runs:
                    await asyncio.wait(self.scheduler._runs)
                await self._receive(await self._next_tick(max(now + TICK_S, seconds_of(self.clock()))))

    async def _next_tick(self, soonest: float) -> float:
        """Return the next tick at which something may be due, if no webhook comes until then."""
        world, soonest = self.daemon.world, math.ceil(soonest / TICK_S) * TICK_S
        row = await world.store.read(sources.source_row, source_id=world.source_id)
        if row["unread_us"] is not None:
            return soonest
        return max(soonest, math.ceil(seconds_of(from_us(row["next_pass_us"])) / TICK_S) * TICK_S)

    async def _receive(self, tick: float) -> None:
        """Record the webhooks that come before the tick, and tell the clock: after the first, the next tick counts."""
        while self.arrivals and self.arrivals[-1][0] <= tick:
            arrives, event = self.arrivals.pop()
            self._tell(arrives)
            await self.daemon.push(event)
            tick = min(tick, (math.floor(arrives / TICK_S) + 1) * TICK_S)
        self._tell(tick)
        recorder, every = self.daemon.runtime.writer.recorder, BEAT_EVERY.total_seconds()
        if seconds_of(self.clock()) // every > self.flushed // every:
            self.flushed = seconds_of(self.clock())
            await self._flush(recorder)

    def _tell(self, seconds: float) -> None:
        self.clock.now = max(self.clock.now, at(seconds))

    async def _flush(self, recorder: Any) -> None:
        """Store what the receiver has noticed, as its maintenance does."""
        heard = dict(recorder.heard)
        if heard != self.heard:
            await self.daemon.runtime.write(silence.note_heard, heard=heard)
            self.heard = heard
        late, recorder.late = recorder.late, {}
        if late:
            await self.daemon.runtime.write(looks.want_soon, noticed=late, reason=looks.LATE)


async def read_live(case: Case, flow: Flow, simulation: Simulation, url: str) -> dict[str, Any]:
    """Return what the daemon makes of the flow."""
    clock = FakeClock(BEGAN)
    fake, vendor = new_fake(clock), VENDORS[case.vendor]
    fake.add_endpoint(WEBHOOKS, secret=SECRET)
    for each in simulation.before:
        fake._add(CHARGE, None, "", at(each), at(each))
    charges = [each - LAG_P999_S for each in flow.charges]
    sent = events_of(flow)
    events = [
        fake._add(_type(each.occurred, charges), None, "", at(each.occurred), at(each.occurred + delay))
        for each in sent
        for delay in (simulation.delays[each.place],)
    ]
    arrivals = [(each.arrives, event) for each, event in zip(sent, events, strict=True) if each.arrives < NEVER]
    known = Stripe.capabilities.grant
    assert known is not None
    grant = known if vendor.per_transaction else replace(known, per_event=0, types=())
    pace = Pace(shortest=vendor.shortest, longest=LONGEST, adaptive=True)
    transport = InProcess(fake=fake, before=lambda _: clock.advance(seconds=REQUEST_S))
    async with opened(url) as store, httpx.AsyncClient(transport=transport) as client:
        world = World(store=store, clock=clock, fake=fake, client=client, start=BEGAN)
        await world.open()
        async with world.daemon(pace=pace, grant=grant, sweep_every=SWEEP_EVERY) as daemon:
            runtime, policies = daemon.runtime, {"acme": daemon.policy}
            scheduler = Scheduler(runtime, policies, client, holder="one", retry=HASTY)
            arrivals.sort(key=lambda each: -each[0])
            live = Live(daemon=daemon, scheduler=scheduler, arrivals=arrivals, clock=clock)
            await live.run(case.days * DAY)
            seen = dict(await store.read(_seen))
            used = await store.read(
                budgets.used_in_period,
                scope=daemon.source.provider.budget_scope(),
                period=timedelta(days=30),
                now_us=to_us(clock()),
            )
            plan = scheduler._memories["acme"].reckoning
    assert plan is not None
    lost = [(each, event) for each, event in zip(sent, events, strict=True) if each.arrives == NEVER]
    end = case.days * DAY - HOUR
    return {
        "waits": [seconds_of(from_us(seen[event.key])) - each.occurred for each, event in lost if event.key in seen],
        "still_lost": sum(event.key not in seen and each.occurred < end for each, event in lost),
        "requests": len(fake.requests),
        "by_purpose": used,
        "settle_s": plan.settle.total_seconds(),
        "grace_s": plan.grace.total_seconds(),
    }


def _type(occurred: float, charges: list[float]) -> str:
    """Return the type of an event: each transaction begins with its charge."""
    place = bisect_left(charges, occurred - 1e-6)
    return CHARGE if place < len(charges) and abs(charges[place] - occurred) < 1e-6 else OTHER


def _seen(connection: Any) -> Any:
    return [tuple(row) for row in connection.execute(select(EVENT.c.key, EVENT.c.first_seen_us))]


def simulated(case: Case, calendar: Calendar, number: int = 0) -> tuple[Flow, Simulation]:
    """Return the flow of an account of a case and the simulation that reads it, which has not run yet."""
    vendor, rhythm = VENDORS[case.vendor], RHYTHMS[case.rhythm]
    flow = make_flow(rhythm, 1.0, calendar, random.Random(1 + number), single=case.lost)
    return flow, Simulation(vendor, rhythm, calendar, [flow])


def measure(places: Places, cases: Sequence[Case], note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Let the simulation and then the daemon read each case."""
    rows = list[dict[str, Any]]()
    for case in cases:
        told, found, losses = list[dict[str, Any]](), list[dict[str, Any]](), 0
        for number in range(case.accounts):
            flow, simulation = simulated(case, Calm(days=case.days), number)
            row = simulation.run()
            told.append({**row, "waits": [wait for _, wait in row["waits"]]})
            with places.fresh(SQLITE) as url:
                found.append(asyncio.run(read_live(case, flow, simulation, url)))
            losses += len(flow.losses)
        rows.append({"case": asdict(case), "losses": losses, "simulation": _short(told), "daemon": _short(found)})
        differences = ", ".join(
            f"{name.removesuffix('_s')} {100 * by:.0f} %"
            for name in COMPARED
            if (by := apart(rows[-1], name)) is not None
        )
        requests = rows[-1]["daemon"]["requests"]
        note(f"{_name(case)}: {requests:,} requests; apart: {differences}")
    return rows


def _short(accounts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what became of some accounts together."""
    waits, by_purpose = sorted(wait for each in accounts for wait in each["waits"]), Counter[str]()
    for each in accounts:
        by_purpose.update(each["by_purpose"])
    sums = {name: sum(each[name] for each in accounts) for name in ("still_lost", "requests")}
    longest = {name: max(each[name] for each in accounts) for name in ("settle_s", "grace_s")}
    return sums | longest | {"by_purpose": dict(by_purpose)} | {name: share_of(waits, share) for name, share in SHARES}


def apart(row: dict[str, Any], name: str) -> float | None:
    """Return how far the daemon is from the simulation in one figure, as a share of the simulation's."""
    told, found = row["simulation"][name], row["daemon"][name]
    return None if not told or found is None else abs(found - told) / told


COMPARED: Final = ("requests", "median_s", "p95_s", "p99_s")


def tables(rows: list[dict[str, Any]]) -> str:
    """Return both beside each other."""
    heads = ["account", "losses", "read by", "median / p95 / p99 / longest", "still lost", "requests", "for what"]
    lines = [
        [
            _name(Case(**row["case"])),
            row["losses"],
            reader,
            spans(row[reader], *(name for name, _ in SHARES)),
            row[reader]["still_lost"],
            f"{row[reader]['requests']:,}",
            ", ".join(f"{name} {count:,}" for name, count in sorted(row[reader]["by_purpose"].items())),
        ]
        for row in rows
        for reader in ("simulation", "daemon")
    ]
    return "The daemon beside the simulation, on the same events\n\n" + table(heads, lines)


def _name(case: Case) -> str:
    accounts = f"{case.accounts} accounts, " if case.accounts > 1 else ""
    return f"{case.vendor}, {case.rhythm}, {accounts}{case.days:g} days"


def bars(rows: list[dict[str, Any]]) -> list[Bar]:
    """Return how far apart the two are at most, in each figure."""
    found = {name: [each for row in rows if (each := apart(row, name)) is not None] for name in COMPARED}
    return [
        Bar(name=f"agreement: {name.removesuffix('_s')}", wanted=WANTED, got=spread([max(values)]), at_most=True)
        for name, values in found.items()
        if values
    ]
