"""What all webhook endpoints of a process share."""

from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from gapless.domain import Clock, Sources
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.receive.admission import Admission
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.quarantine import Quarantine, QuarantineOptions
from gapless.receive.stream_ids import StreamIds


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOptions:
    """The receive road's own options."""

    body_limit: int = 1 << 20
    """Most bytes of a body; more is answered 413."""
    body_within: timedelta = timedelta(seconds=30)
    """How long a sender may take over a body that comes in several parts."""
    min_free: int = 256 << 20
    """Free bytes on the store's disk under which webhooks are answered 503. 0: off."""
    quarantine: QuarantineOptions = field(default_factory=QuarantineOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What all endpoints of a process share."""

    sources: Sources
    writer: Writer
    metrics: Metrics
    clock: Clock
    intake: Admission
    quarantine: Quarantine
    streams: StreamIds
    evidence: EvidenceFetcher
    options: ReceiveOptions


def make_receiver(
    *,
    sources: Sources,
    writer: Writer,
    metrics: Metrics,
    clock: Clock,
    client: httpx.AsyncClient | None = None,
    options: ReceiveOptions | None = None,
) -> Receiver:
    """The parts of the receive road, wired. The caller runs `intake.watch` and `quarantine.run`.

    `client` is what evidence is fetched with; None: one of its own.
    """
    options = options or ReceiveOptions()
    metrics.recorder_queue.set_function(lambda: writer.queued)
    return Receiver(
        sources=sources,
        writer=writer,
        metrics=metrics,
        clock=clock,
        intake=Admission(),
        quarantine=Quarantine(writer, metrics, options.quarantine),
        streams=StreamIds(writer),
        evidence=EvidenceFetcher(client or httpx.AsyncClient(trust_env=False), clock, metrics),
        options=options,
    )
