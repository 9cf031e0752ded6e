"""Background tasks of the daemon: heartbeats, pruning, changed secrets, notifications from other replicas."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from gapless.bootstrap.ledger import note_times_ahead
from gapless.bootstrap.tls import Certificates
from gapless.clock import TOLERANCE, ProcessClock, machine_clock
from gapless.domain import Sources, span_us
from gapless.ledger import audit_log, configurations, leases, looks, retention, silence, sources, times
from gapless.ledger.audit_log import UNKEYED, AuditKey
from gapless.ledger.configurations import Standing
from gapless.ledger.engine import PostgresStore, Store, StoreError
from gapless.ledger.leases import LeaseLost
from gapless.ledger.ordering import DELIVERY_CHANNEL
from gapless.ledger.retention import Pruned
from gapless.ledger.writer import Writer
from gapless.runtime import Runtime
from gapless.settings import (
    RetentionSettings,
    SecretUnavailable,
    SourceSettings,
    build_provider,
    option_files,
)
from gapless_reconcilers.kit.errors import OptionsInvalid

log = logging.getLogger(__name__)
BEAT_EVERY = timedelta(seconds=2)
READ_CLOCK_EVERY = timedelta(seconds=1)
READ_WAITS_EVERY = timedelta(minutes=1)
PRUNE_EVERY = timedelta(minutes=10)
PRUNE_AFTER = timedelta(minutes=1)
"""Time from the start to the first pruning: by then, the sources' first runs have shown whether our clock is right."""
PRUNE_AFTER_JUMP = timedelta(hours=2)
"""Time without pruning after the clock has jumped: by then, each source was read again, and showed if it is right."""
CHECK_FILES_EVERY = timedelta(seconds=2)
RECONNECT_EVERY = timedelta(seconds=5)


async def beat(runtime: Runtime, holder: str, *, receives: bool, standing: Standing | None = None) -> None:
    """Keep the writer slot, which also proves that webhooks were received. Runs until cancelled."""
    writer, last_us = runtime.writer, runtime.elapsed_us
    saved: dict[int, int] = {}
    while True:
        await asyncio.sleep(BEAT_EVERY.total_seconds())
        silent = timedelta(microseconds=runtime.elapsed_us - last_us)
        count_recovered(runtime)
        try:
            try:
                await writer.submit(
                    leases.beat,
                    slot=writer.recorder.slot,
                    holder=holder,
                    silent=silent,
                    offset=machine_clock(runtime.clock)() - runtime.clock(),
                )
            except LeaseLost:
                await _take_another_slot(writer, holder, receives=receives, standing=standing)
                continue
            last_us = runtime.elapsed_us
            heard = dict(writer.recorder.heard)
            if heard != saved:
                await writer.submit(silence.note_heard, heard=heard)
                saved = heard
            late, writer.recorder.late = writer.recorder.late, {}
            if late:
                await writer.submit(looks.want_soon, noticed=late, reason=looks.LATE)
        except StoreError as error:
            log.warning("heartbeat_failed", extra={"error": str(error)})


def count_recovered(runtime: Runtime) -> None:
    """Count how long it took to recover events that were missed already when they were recorded, since the last time.

    Those that are recorded first, and judged later, are counted when that is done.
    """
    recorder = runtime.writer.recorder
    recovered, recorder.recovered = recorder.recovered, {}
    names = {source.id: source.name for source in runtime.sources}
    for (source_id, _), each in recovered.items():
        if source_id in names:
            runtime.metrics.recovery.labels(names[source_id], each.via.value).observe(each.took_s)


async def _take_another_slot(writer: Writer, holder: str, *, receives: bool, standing: Standing | None) -> None:
    """Take a writer slot in place of one that another process has taken. Raises `StoreError`."""
    slot = await writer.submit(leases.take_slot, holder=holder, receives=receives)
    await writer.submit(configurations.note_process, slot=slot, standing=standing)
    log.warning("writer_slot_lost", extra={"slot": writer.recorder.slot, "taken": slot})
    writer.recorder.slot = slot


async def watch_clock(runtime: Runtime) -> None:
    """Let the process's clock follow the ledger's, and keep what is stored right if a clock jumps, until cancelled."""
    readings = READ_WAITS_EVERY // READ_CLOCK_EVERY
    while True:
        for reading in range(readings):
            try:
                jumped = await follow_clock(runtime)
                if jumped or reading == 0:
                    await correct_waits(runtime)
            except StoreError as error:
                log.warning("clock_not_read", extra={"error": str(error)})
            await asyncio.sleep(READ_CLOCK_EVERY.total_seconds())


async def follow_clock(runtime: Runtime) -> bool:
    """Set the process's clock by the ledger's; return True if that jumped. Raises `StoreError`.

    On SQLite the ledger's clock is the machine's, and what waits is moved with it: a wait under way keeps its length.
    """
    clock, metrics = runtime.clock, runtime.metrics
    if not isinstance(clock, ProcessClock):
        return False
    now, took = await times.ledger_time(runtime.store, clock)
    if took > TOLERANCE:  # too slow to tell
        return False
    by = now - clock()
    jumped = abs(by) > TOLERANCE
    if jumped:
        log.warning("clock_jumped", extra={"by_s": round(by.total_seconds(), 3)})
        metrics.clock_jumps.inc()
        clock.note_jump()
        if not isinstance(runtime.store, PostgresStore):
            await runtime.write(times.move, now_us=runtime.now_us, by_us=span_us(by))
    clock.set(clock() + by)
    metrics.clock_offset.set((clock.machine() - clock()).total_seconds())
    return jumped


async def correct_waits(runtime: Runtime) -> None:
    """Make due what lies further ahead than its own wait, and log it. Raises `StoreError`."""
    if await runtime.read(times.any_ahead, now_us=runtime.now_us):
        found = await runtime.write(times.make_due, now_us=runtime.now_us)
        note_times_ahead(found, runtime.metrics)


async def prune(
    runtime: Runtime, retention: RetentionSettings, destination_ids: Iterable[int], refused: timedelta | None = None
) -> None:
    """Prune what is older than the retention, in small steps when the writer is idle. Runs until cancelled.

    The time is the earlier of ours and the providers', so that a wrong clock prunes nothing.
    """
    destinations, clock = tuple(destination_ids), runtime.clock
    await asyncio.sleep(PRUNE_AFTER.total_seconds())
    while True:
        try:
            if not isinstance(clock, ProcessClock) or clock.is_settled(PRUNE_AFTER_JUMP):
                now_us = runtime.now_us - await runtime.read(sources.greatest_skew_us)
                await prune_once(runtime.writer, retention, destinations, now_us, runtime.audit_key, refused)
        except StoreError as error:
            log.warning("pruning_failed", extra={"error": str(error)})
        await asyncio.sleep(PRUNE_EVERY.total_seconds())


async def prune_once(
    writer: Writer,
    limits: RetentionSettings,
    destination_ids: Sequence[int],
    now_us: int,
    audit_key: AuditKey = UNKEYED,
    refused: timedelta | None = None,
) -> None:
    """Prune everything that is old enough at `now_us`; deliveries first, because payloads are kept for them.

    `refused`: the age from which on the content of refused webhooks is deleted; None: never.
    """
    steps: list[tuple[timedelta | None, Callable[..., Pruned]]] = [
        *((limits.deliveries, partial(retention.prune_deliveries, destination_id=each)) for each in destination_ids),
        (limits.attempts, retention.prune_attempts),
        (limits.payloads, retention.prune_payloads),
        (limits.payloads, retention.prune_receipts),
        (limits.passes, retention.prune_passes),
        (limits.clean_passes, partial(retention.prune_passes, only_clean=True)),
        (limits.audit_log, partial(audit_log.prune, key=audit_key, now_us=now_us)),
        (refused, partial(retention.prune_quarantine, now_us=now_us)),
    ]
    for age, step in steps:
        after: int | None = None if age is None else 0
        while after is not None and age is not None:
            done = await writer.submit_idle(step, before_us=now_us - span_us(age), after=after)
            after = done.after
    for destination_id in destination_ids:
        after = 0
        while after is not None:
            trimmed = await writer.submit_idle(
                retention.trim_attempts, destination_id=destination_id, most=limits.attempts_per_delivery, after=after
            )
            after = trimmed.after


async def watch_secrets(configured: Iterable[SourceSettings], known: Sources, environ: Mapping[str, str]) -> None:
    """Rebuild the provider of a source when a file of its secrets changes. Runs until cancelled.

    If the file cannot be read or is invalid, the old secret stays in use, and the log says so.
    """
    watched = [(source, option_files(source)) for source in configured]
    seen = {source.name: await _stamps(files) for source, files in watched}
    while True:
        await asyncio.sleep(CHECK_FILES_EVERY.total_seconds())
        for source, files in watched:
            stamps = await _stamps(files)
            if stamps != seen[source.name]:
                seen[source.name] = stamps
                _replace_provider(source, known, environ)


def _replace_provider(source: SourceSettings, known: Sources, environ: Mapping[str, str]) -> None:
    try:
        known.change(source.name, provider=build_provider(source, environ))
    except (SecretUnavailable, OptionsInvalid) as error:
        log.error("secret_not_replaced", extra={"source": source.name, "error": str(error)})  # noqa: TRY400
    else:
        log.info("secret_replaced", extra={"source": source.name})


async def _stamps(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    return await asyncio.to_thread(lambda: {path: _stamp(path) for path in files})


def _stamp(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_ino
    return 0, 0


async def watch_certificates(known: Iterable[Certificates]) -> None:
    """Give new connections the certificates that files have by then, until cancelled. Open ones are left alone."""
    while True:
        await asyncio.sleep(CHECK_FILES_EVERY.total_seconds())
        for each in known:
            await asyncio.to_thread(each.reload_if_changed)


async def wake_on_notice(store: Store, wake: Callable[[], None]) -> None:
    """Wake the dispatcher when another replica has created deliveries. Runs until cancelled; returns at once on SQLite.

    A lost connection is opened again; until then the slow poll of the dispatcher finds the deliveries.
    """
    if not isinstance(store, PostgresStore):
        return
    while True:
        try:
            await store.listen(DELIVERY_CHANNEL, lambda _: wake())
        except StoreError as error:
            log.warning("listen_failed", extra={"error": str(error)})
        wake()
        await asyncio.sleep(RECONNECT_EVERY.total_seconds())
