"""Works the jobs of the ledger, and cancels them. `operations.deliveries` begins them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from gapless.domain import from_us
from gapless.ledger import Connection, audit_log, jobs
from gapless.ledger.dead_letters import BATCH
from gapless.ledger.engine import StoreError
from gapless.ledger.jobs import JobBatch, JobKind, JobState, NewJob, Plan, StoredJob
from gapless.operations.context import OperationContext, OperationForbidden, OperationRefused, OperationRequest
from gapless.operations.principals import Principal, refusal
from gapless.runtime import Runtime

IDLE_S, BUSY_S = 1.0, 0.1
"""Time between two looks while no job runs, and while one does."""
SMALLEST, FIRST, LARGEST = 25, 50, 500
"""Bounds of the batches of a job without a rate of its own, and the first one."""
AGAIN_AFTER_US = 10_000_000
"""Time after which a job is tried again that met a bug of ours."""
ERROR_SHOWN = 300
DISCARDS = frozenset((JobKind.DISCARD, JobKind.DISCARD_HELD))
"""Kinds that send nothing, and so need not be paced."""
Progress: TypeAlias = Callable[[StoredJob], None]
log = logging.getLogger(__name__)


class CancelJobs(OperationRequest, frozen=True, kw_only=True):
    """End the jobs with these ids. What they have done stays."""

    operation = "job.cancel"
    checks_limits = True
    ids: Annotated[tuple[int, ...], Meta(min_length=1, max_length=100)]


async def cancel(context: OperationContext, request: CancelJobs) -> dict[str, object]:
    """Cancel the jobs, all or none of them."""
    done = await context.write(
        request.operation, ", ".join(map(str, request.ids)), _cancel, context=context, ids=request.ids
    )
    return {"cancelled": done}


def _cancel(connection: Connection, context: OperationContext, ids: tuple[int, ...]) -> list[int]:
    for job_id in ids:
        job = jobs.find(connection, job_id) if job_id.bit_length() < 63 else None  # noqa: PLR2004 - as databases count
        if job is None or not may_see(context.principal, job):
            raise OperationRefused(f"there is no job {job_id}; `gapless job list --all` shows those there are")
        why = refusal(context.principal, {"source": job.source, "destination": job.destination})
        if why is not None:
            raise OperationForbidden(f"job.cancel: {why}")
        if not jobs.cancel(connection, job_id, context.now_us):
            raise OperationRefused(f"job {job_id} has ended already ({job.state.value})")
    return list(ids)


def may_see(principal: Principal, job: StoredJob) -> bool:
    """Return True unless the principal is limited, and the job is about more than that."""
    return refusal(principal, {"source": job.source, "destination": job.destination}) is None


async def begin(
    context: OperationContext,
    kind: JobKind,
    plan: Plan,
    count: int,
    *,
    source: str | None,
    destination: str | None,
    rate: float | None,
    after_seq: int = 0,
) -> dict[str, object]:
    """Begin a job; return its id and how many it concerns."""
    approved = None if context.approved_by is None else f"approved by {context.approved_by}"
    new = NewJob(
        kind=kind,
        plan=plan,
        planned=count,
        source=source,
        destination=destination,
        pace_us=None if rate is None else int(1_000_000 / rate),
        created_by=context.actor,
        role=context.principal.role.value,
        reason="; ".join(each for each in (context.reason, approved) if each) or None,
        after_seq=after_seq,
    )
    made = await context.write(kind.value, destination or "*", jobs.begin, new=new, now_us=context.now_us)
    return {**made}


def as_values(job: StoredJob) -> dict[str, object]:
    """Return a job for JSON."""
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "source": job.source,
        "destination": job.destination,
        "chosen": msgspec.json.decode(job.plan).get("chosen"),
        "count": job.planned,
        "done": job.done,
        "left_out": job.left_out,
        "rate": None if job.pace_us is None else 1_000_000 / job.pace_us,
        "created": from_us(job.created_us),
        "by": job.created_by,
        "reason": job.reason,
        "ended": None if job.ended_us is None else from_us(job.ended_us),
        "last_error": job.last_error,
    }


class JobRunner:
    """Works the jobs of the ledger, batch by batch.

    A job with a rate keeps it. Another gives a destination no more while much of what it gave is still due there, so
    that live events wait behind one batch at most. Batches grow while the destination is quick, and shrink while not.
    """

    def __init__(self, runtime: Runtime, wake: Callable[[], None]) -> None:
        self._runtime = runtime
        self._wake = wake
        self._sizes: dict[int, int] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            has_jobs = False
            try:
                has_jobs = await self.work_due()
            except StoreError as error:
                log.warning("jobs_postponed", extra={"error": str(error)})
            await asyncio.sleep(BUSY_S if has_jobs else IDLE_S)

    async def work_due(self) -> bool:
        """Do a batch of each job that is due; return True if there are any. Raises `StoreError`."""
        found = await self._runtime.read(jobs.due, now_us=self._runtime.now_us)
        self._sizes = {job.id: self._sizes.get(job.id, FIRST) for job in found}
        for job in found:
            await self._guarded(job)
        return bool(found)

    async def _guarded(self, job: StoredJob) -> None:
        try:
            size = await self._size(job)
            if size:
                await work(self._runtime, job, size)
                self._wake()
        except StoreError:
            raise
        except Exception as error:
            log.exception("job_failed", extra={"job": job.id})
            until_us, text = self._runtime.now_us + AGAIN_AFTER_US, f"{type(error).__name__}: {error}"[:ERROR_SHOWN]
            await self._runtime.write(jobs.put_off, job=job, until_us=until_us, error=text)

    async def _size(self, job: StoredJob) -> int:
        """Return how many the next batch has; 0: the destination has enough to do."""
        if job.pace_us is not None:
            return paced(job.pace_us)
        if job.kind in DISCARDS:
            return BATCH
        most = LARGEST + 1
        waits = await self._runtime.read(jobs.waiting_at, job=job, now_us=self._runtime.now_us, most=most)
        self._sizes[job.id], allowed = next_size(self._sizes[job.id], waits)
        return allowed


def paced(pace_us: int) -> int:
    """Return the size of the batches of a job with a rate: what it does in a second, within bounds."""
    return max(1, min(LARGEST, 1_000_000 // pace_us))


def next_size(size: int, waits: int) -> tuple[int, int]:
    """Return the size of the next batches, and how many may be given now, if so many are due already."""
    if not waits:
        size = min(2 * size, LARGEST)
    elif waits > size:
        size = max(size // 2, SMALLEST)
    return size, size if waits <= size // 4 else 0


async def work(runtime: Runtime, job: StoredJob, size: int) -> StoredJob | None:
    """Do one batch; return the job after it, or None if it had ended or moved on meanwhile. Raises `StoreError`."""
    if not await runtime.read(jobs.takes_deliveries, job=job):
        error = f"destination {job.destination!r} is not configured any more"
        await runtime.write(jobs.fail, job=job, now_us=runtime.now_us, error=error)
        return None
    batch = await runtime.read(jobs.next_batch, job=job, limit=size)
    return await runtime.write(_advance, runtime=runtime, job=job, batch=batch)


def _advance(connection: Connection, runtime: Runtime, job: StoredJob, batch: JobBatch) -> StoredJob | None:
    now_us = runtime.now_us
    began_us = max(job.next_us, now_us - 1_000_000) if job.next_us <= now_us else now_us
    next_us = now_us if job.pace_us is None else began_us + len(batch.keys) * job.pace_us
    after = jobs.advance(connection, job, batch, now_us=now_us, next_us=next_us)
    if after is not None and after.state is JobState.FINISHED:
        detail = {"job": after.id, "done": after.done, "left_out": after.left_out}
        audit_log.add(connection, _ended(after, now_us, msgspec.json.encode(detail).decode()), runtime.audit_key)
    return after


def _ended(job: StoredJob, now_us: int, detail: str) -> audit_log.Action:
    return audit_log.Action(
        at_us=now_us,
        actor=job.created_by,
        role=job.role,
        action=job.kind.value,
        subject=job.destination or "*",
        detail=detail,
        reason=job.reason,
    )


async def work_to_end(runtime: Runtime, job_id: int, progress: Progress = lambda _: None) -> StoredJob:
    """Work one job until it has ended, in a process that delivers nothing: without regard for what is due.

    Raises `OperationRefused` if there is no such job, and `StoreError`.
    """
    while True:
        job = await runtime.read(jobs.find, job_id=job_id)
        if job is None:
            raise OperationRefused(f"there is no job {job_id}; `gapless job list --all` shows those there are")
        progress(job)
        if job.state is not JobState.RUNNING:
            return job
        wait_us = min(job.next_us - runtime.now_us, jobs.FARTHEST_US)
        if job.pace_us is not None and wait_us > 0:
            await asyncio.sleep(wait_us / 1_000_000)
        await work(runtime, job, BATCH if job.pace_us is None else paced(job.pace_us))
