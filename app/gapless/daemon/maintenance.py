"""Background tasks of the daemon: heartbeats, pruning, changed secrets, notifications from other replicas."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from gapless.domain import Clock, Sources, span_us, to_us
from gapless.ledger import leases, retention, silence
from gapless.ledger.deliveries import DELIVERY_CHANNEL
from gapless.ledger.engine import PostgresStore, Store, StoreError
from gapless.ledger.leases import LeaseLost
from gapless.ledger.retention import Pruned
from gapless.ledger.writer import Writer
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
PRUNE_EVERY = timedelta(minutes=10)
CHECK_FILES_EVERY = timedelta(seconds=2)
RECONNECT_EVERY = timedelta(seconds=5)


async def beat(writer: Writer, holder: str, *, receives: bool) -> None:
    """Keep the writer slot, which also proves that webhooks were received. Runs until cancelled."""
    saved: dict[int, int] = {}
    while True:
        await asyncio.sleep(BEAT_EVERY.total_seconds())
        try:
            await writer.submit(leases.beat, slot=writer.recorder.slot, holder=holder)
            heard = dict(writer.recorder.heard)
            if heard != saved:
                await writer.submit(silence.note_heard, heard=heard)
                saved = heard
        except LeaseLost:
            slot = await writer.submit(leases.take_slot, holder=holder, receives=receives)
            log.warning("writer_slot_lost", extra={"slot": writer.recorder.slot, "taken": slot})
            writer.recorder.slot = slot
        except StoreError as error:
            log.warning("heartbeat_failed", extra={"error": str(error)})


async def prune(writer: Writer, retention: RetentionSettings, destination_ids: Iterable[int], clock: Clock) -> None:
    """Prune what is older than the retention, in small steps when the writer is idle. Runs until cancelled."""
    destinations = tuple(destination_ids)
    while True:
        try:
            await prune_once(writer, retention, destinations, clock)
        except StoreError as error:
            log.warning("pruning_failed", extra={"error": str(error)})
        await asyncio.sleep(PRUNE_EVERY.total_seconds())


async def prune_once(writer: Writer, limits: RetentionSettings, destination_ids: Iterable[int], clock: Clock) -> None:
    """Prune everything that is old enough now; deliveries first, because payloads are kept for them."""
    now_us = to_us(clock())
    steps: list[tuple[timedelta | None, Callable[..., Pruned]]] = [
        *((limits.deliveries, partial(retention.prune_deliveries, destination_id=each)) for each in destination_ids),
        (limits.attempts, retention.prune_attempts),
        (limits.payloads, retention.prune_payloads),
        (limits.payloads, retention.prune_receipts),
        (limits.passes, retention.prune_passes),
    ]
    for age, step in steps:
        after: int | None = None if age is None else 0
        while after is not None and age is not None:
            done = await writer.submit_idle(step, before_us=now_us - span_us(age), after=after)
            after = done.after


async def watch_secrets(configured: Iterable[SourceSettings], sources: Sources, environ: Mapping[str, str]) -> None:
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
                _replace_provider(source, sources, environ)


def _replace_provider(source: SourceSettings, sources: Sources, environ: Mapping[str, str]) -> None:
    try:
        sources.change(source.name, provider=build_provider(source, environ))
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


async def wake_on_notice(store: Store, wake: Callable[[], None]) -> None:
    """Wake the dispatcher when another replica has created deliveries. Runs until cancelled; returns at once on SQLite.

    A lost connection is opened again; until then the slow poll of the dispatcher finds the deliveries.
    """
    if not isinstance(store, PostgresStore):
        return
    while True:
        try:
            await store.listen(DELIVERY_CHANNEL, wake)
        except StoreError as error:
            log.warning("listen_failed", extra={"error": str(error)})
        wake()
        await asyncio.sleep(RECONNECT_EVERY.total_seconds())
