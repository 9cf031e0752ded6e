"""The course of the demo: events occur, phases follow the plan, the daemon is killed and restarted, the gap closes."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gapless.demo.configuration import CLOSING, DemoOptions, Phase, PhasePlan
from gapless.demo.consumer import Consumer
from gapless.demo.daemon_process import DaemonProcess, DaemonStatus
from gapless.demo.report import DemoReport, DemoSnapshot, Ending, compare_events, ledger_counts, make_report
from gapless_reconcilers.testing.fake import FakeProvider, utc_now
from gapless_reconcilers.testing.fake.webhook_sender import Faults

TYPES = (
    "payment_intent.succeeded",
    "charge.succeeded",
    "invoice.paid",
    "customer.subscription.updated",
    "charge.refunded",
    "payout.paid",
)
"""The types of events, emitted one after the other, so that a short demo has every type in every phase."""
TICK_S = 0.05
SNAPSHOT_EVERY_S = 0.25
CLOSING_TIMEOUT_S = 90.0
"""Seconds after its length that the demo waits for the gap to close: a lease on PostgreSQL takes 30 s to end."""


@dataclass(slots=True, kw_only=True)
class DemoScenario:
    """The running parts and the state of the demo. `stop` ends the emitting; while the gap closes it ends that too."""

    options: DemoOptions
    plan: PhasePlan
    provider: FakeProvider
    consumer: Consumer
    daemon: DaemonProcess
    stop: asyncio.Event
    show: Callable[[DemoSnapshot], None]
    emitted: dict[str, datetime] = field(default_factory=dict)
    """The time at which each event was emitted, to the microsecond; Stripe's own time is in whole seconds."""
    downtimes_s: list[float] = field(default_factory=list)
    phase: Phase = CLOSING
    _started_s: float = 0.0
    _killed_at_s: float = 0.0
    _starting: asyncio.Task[None] | None = None
    _watching: asyncio.Task[None] | None = None
    _status: DaemonStatus | None = None

    async def play(self) -> DemoReport:
        """Run all phases and return the report. Raises `DaemonEnded` if the daemon ends without being killed."""
        self._started_s = time.monotonic()
        await self._enter(self.plan.at(0.0))
        self._watching = asyncio.create_task(self._watch())
        try:
            await self._open_gap()
            await self._close_gap()
        finally:
            await _end(self._starting)
            await _end(self._watching)
        return await self._report()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started_s

    async def _open_gap(self) -> None:
        while not self.stop.is_set():
            phase = self.plan.at(self.elapsed_s)
            if phase is CLOSING:
                return
            if phase is not self.phase:
                await self._enter(phase)
            self._check()
            self._emit_due()
            await asyncio.sleep(TICK_S)

    async def _close_gap(self) -> None:
        interrupted = self.stop.is_set()
        await self._enter(CLOSING)
        settled = asyncio.create_task(self.provider.settle())
        ending = self._ending()
        give_up_s = max(self.elapsed_s, self.options.length_s or 0.0) + CLOSING_TIMEOUT_S
        while self.elapsed_s < give_up_s and (interrupted or not self.stop.is_set()):
            self._check()
            if self._should_run() and settled.done() and self._status and ending.is_reached(self._status):
                break
            await asyncio.sleep(TICK_S)
        await _end(settled)

    async def _enter(self, phase: Phase) -> None:
        previous, self.phase = self.phase, phase
        self._set_faults()
        if previous.killed:
            self._starting = asyncio.create_task(self._restart())
        if phase.killed:
            if self._starting is not None:
                await self._starting
            await self.daemon.kill()
            self._killed_at_s = self.elapsed_s

    async def _restart(self) -> None:
        await self.daemon.start()
        self.downtimes_s.append(self.elapsed_s - self._killed_at_s)

    def _check(self) -> None:
        """Set the faults of now, and raise what has failed in a task or in the daemon."""
        self._set_faults()
        for task in (self._watching, self._starting):
            if task is not None and task.done():
                task.result()
        if self._should_run():
            self.daemon.check()

    def _should_run(self) -> bool:
        """Return True if the daemon should be running."""
        return not self.phase.killed and (self._starting is None or self._starting.done())

    def _set_faults(self) -> None:
        """Apply the requested faults in the phases for them; else only the types that the list never shows."""
        requested, outage = self.options.faults, self.options.outage
        faults = replace(requested) if self.phase.faulty else Faults(hidden_types=requested.hidden_types)
        is_out = outage is not None and self.phase is not CLOSING and outage.is_on(self.elapsed_s)
        faults.outage = self.phase.outage or is_out
        self.provider.faults = faults

    def _emit_due(self) -> None:
        """Emit every event that is due by now, so that a slow machine emits no fewer of them."""
        while len(self.emitted) < self.elapsed_s * self.options.rate:
            now = utc_now()
            event = self.provider.emit(TYPES[len(self.emitted) % len(TYPES)])
            self.emitted[event.key] = now

    def _ending(self) -> Ending:
        now = utc_now()
        late = timedelta(seconds=self.options.faults.late_visible_s if self.options.faults.late_visible else 0.0)
        last = self.provider.events[-1].occurred_at if self.provider.events else now
        return Ending(last_occurred=last, all_visible_at=now + late)

    async def _watch(self) -> None:
        """Take and show snapshots, again and again."""
        while True:
            await self._take_snapshot()
            await asyncio.sleep(SNAPSHOT_EVERY_S)

    async def _take_snapshot(self) -> DemoSnapshot:
        if self._should_run():
            self._status = await self.daemon.status() or self._status
        snapshot = DemoSnapshot(
            at=utc_now(),
            elapsed_s=self.elapsed_s,
            length_s=self.options.length_s,
            phase=self.phase,
            daemon_runs=self._should_run(),
            at_provider=len(self.provider.events),
            at_consumer=len(self.consumer.accepted),
            requests=len(self.provider.requests),
            **ledger_counts(self._status),  # type: ignore[arg-type]
        )
        self.show(snapshot)
        return snapshot

    async def _report(self) -> DemoReport:
        last = await self._take_snapshot()
        consumer = self.consumer
        comparison = compare_events(self.emitted, consumer.attempts, consumer.accepted, consumer.refused)
        return make_report(self.provider, consumer, self.emitted, comparison, last, tuple(self.downtimes_s))


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel the task and wait until it is over."""
    if task is not None and not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
