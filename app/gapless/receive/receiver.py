"""What all webhook endpoints of a process share."""

from dataclasses import dataclass
from datetime import timedelta

import httpx

from gapless.receive.admission import Admission
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.quarantine import Quarantine, QuarantineOptions
from gapless.receive.stream_ids import StreamIds
from gapless.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOptions:
    """How webhooks are received."""

    body_limit: int
    """Most bytes of a body; more is answered 413."""
    body_within: timedelta = timedelta(seconds=30)
    """How long a sender may take over a body that comes in several parts."""
    quarantine: QuarantineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What all endpoints of a process share."""

    runtime: Runtime
    admission: Admission
    quarantine: Quarantine
    stream_ids: StreamIds
    evidence: EvidenceFetcher
    options: ReceiveOptions


def make_receiver(runtime: Runtime, *, options: ReceiveOptions, client: httpx.AsyncClient | None = None) -> Receiver:
    """The parts that receive, wired. The caller runs `admission.watch` and `quarantine.run`.

    `client` is what evidence is fetched with; None: one of its own.
    """
    runtime.metrics.recorder_queue.set_function(lambda: runtime.writer.queued)
    return Receiver(
        runtime=runtime,
        admission=Admission(),
        quarantine=Quarantine(runtime.writer, runtime.metrics, options.quarantine),
        stream_ids=StreamIds(runtime.writer),
        evidence=EvidenceFetcher(client or httpx.AsyncClient(trust_env=False), runtime.clock, runtime.metrics),
        options=options,
    )
