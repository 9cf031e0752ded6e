"""The show itself: the provider emits, the script plays, the daemon dies and comes back, the gap opens and closes."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gapless.demo.configuration import CLOSING, DemoOptions, Phase, PhasePlan
from gapless.demo.consumer import Consumer
from gapless.demo.daemon_process import DaemonProcess, DaemonStatus
from gapless.demo.report import DemoReport, DemoSnapshot, Ending, compare_events, ledger_figures, make_report
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
"""What occurs, in turn: a short show has every type in every phase."""
BEAT_S = 0.05
LOOK_EVERY_S = 0.25
PATIENCE_S = 90.0
"""How long after its time the show waits for what can still come: a source's lease on PostgreSQL takes 30 s to end."""


@dataclass(slots=True, kw_only=True)
class DemoScenario:
    """Everything that plays a part. `stop` ends the emitting; set during the closing it ends that too."""

    options: DemoOptions
    script: PhasePlan
    provider: FakeProvider
    consumer: Consumer
    daemon: DaemonProcess
    stop: asyncio.Event
    show: Callable[[DemoSnapshot], None]
    emitted: dict[str, datetime] = field(default_factory=dict)
    """When each event was emitted, to the microsecond; Stripe's own time is in whole seconds."""
    deaths_s: list[float] = field(default_factory=list)
    phase: Phase = CLOSING
    _began_s: float = 0.0
    _died_s: float = 0.0
    _starting: asyncio.Task[None] | None = None
    _watching: asyncio.Task[None] | None = None
    _status: DaemonStatus | None = None

    async def play(self) -> DemoReport:
        """Play to the end. Raises `DaemonEnded` if the daemon ends when nobody killed it."""
        self._began_s = time.monotonic()
        await self._enter(self.script.at(0.0))
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
        """Seconds since the show began."""
        return time.monotonic() - self._began_s

    async def _open_gap(self) -> None:
        while not self.stop.is_set():
            phase = self.script.at(self.elapsed_s)
            if phase is CLOSING:
                return
            if phase is not self.phase:
                await self._enter(phase)
            self._beat()
            self._emit_due()
            await asyncio.sleep(BEAT_S)

    async def _close_gap(self) -> None:
        interrupted = self.stop.is_set()
        await self._enter(CLOSING)
        settled = asyncio.create_task(self.provider.settle())
        ending = self._ending()
        give_up_s = max(self.elapsed_s, self.options.length_s or 0.0) + PATIENCE_S
        while self.elapsed_s < give_up_s and (interrupted or not self.stop.is_set()):
            self._beat()
            if self._is_whole() and settled.done() and self._status and ending.is_reached(self._status):
                break
            await asyncio.sleep(BEAT_S)
        await _end(settled)

    async def _enter(self, phase: Phase) -> None:
        was, self.phase = self.phase, phase
        self._set_faults()
        if was.killed:
            self._starting = asyncio.create_task(self._revive())
        if phase.killed:
            if self._starting is not None:
                await self._starting
            await self.daemon.kill()
            self._died_s = self.elapsed_s

    async def _revive(self) -> None:
        await self.daemon.start()
        self.deaths_s.append(self.elapsed_s - self._died_s)

    def _beat(self) -> None:
        """Check that all goes well. Raises what went wrong."""
        self._set_faults()
        for task in (self._watching, self._starting):
            if task is not None and task.done():
                task.result()
        if self._is_whole():
            self.daemon.check()

    def _is_whole(self) -> bool:
        """Whether the daemon should be running."""
        return not self.phase.killed and (self._starting is None or self._starting.done())

    def _set_faults(self) -> None:
        """What goes wrong now: in the phases for it, all that was asked for; else only what the list never shows."""
        asked, outage = self.options.faults, self.options.outage
        faults = replace(asked) if self.phase.faulty else Faults(hidden_types=asked.hidden_types)
        is_out = outage is not None and self.phase is not CLOSING and outage.is_on(self.elapsed_s)
        faults.outage = self.phase.outage or is_out
        self.provider.faults = faults

    def _emit_due(self) -> None:
        """Emit as many events as are due by now, so that a slow machine has no fewer of them."""
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
        """Look at everything, again and again, and show it."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> DemoSnapshot:
        if self._is_whole():
            self._status = await self.daemon.status() or self._status
        figures = DemoSnapshot(
            at=utc_now(),
            elapsed_s=self.elapsed_s,
            length_s=self.options.length_s,
            phase=self.phase,
            daemon_runs=self._is_whole(),
            at_provider=len(self.provider.events),
            at_consumer=len(self.consumer.accepted),
            requests=len(self.provider.requests),
            **ledger_figures(self._status),  # type: ignore[arg-type]
        )
        self.show(figures)
        return figures

    async def _report(self) -> DemoReport:
        last = await self._look()
        consumer = self.consumer
        verdict = compare_events(self.emitted, consumer.attempts, consumer.accepted, consumer.refused)
        return make_report(self.provider, consumer, self.emitted, verdict, last, tuple(self.deaths_s))


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel the task and wait until it is over."""
    if task is not None and not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
