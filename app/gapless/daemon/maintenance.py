"""What a daemon does beside its roads: heartbeats, pruning, secrets that change, wake-ups from other replicas."""

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
LOOK_EVERY = timedelta(seconds=2)
RECONNECT_EVERY = timedelta(seconds=5)


async def beat(writer: Writer, holder: str, *, receives: bool) -> None:
    """Keep the writer slot, and with it the proof that somebody receives. Runs until cancelled."""
    noted: dict[int, int] = {}
    while True:
        await asyncio.sleep(BEAT_EVERY.total_seconds())
        try:
            await writer.submit(leases.beat, slot=writer.recorder.slot, holder=holder)
            heard = dict(writer.recorder.heard)
            if heard != noted:
                await writer.submit(silence.note_heard, heard=heard)
                noted = heard
        except LeaseLost:
            slot = await writer.submit(leases.take_slot, holder=holder, receives=receives)
            log.warning("writer_slot_lost", extra={"slot": writer.recorder.slot, "taken": slot})
            writer.recorder.slot = slot
        except StoreError as error:
            log.warning("heartbeat_failed", extra={"error": str(error)})


async def prune(writer: Writer, retention: RetentionSettings, destination_ids: Iterable[int], clock: Clock) -> None:
    """Prune what is older than the retention, in small steps between everything else. Runs until cancelled."""
    destinations = tuple(destination_ids)
    while True:
        try:
            await prune_once(writer, retention, destinations, clock)
        except StoreError as error:
            log.warning("pruning_failed", extra={"error": str(error)})
        await asyncio.sleep(PRUNE_EVERY.total_seconds())


async def prune_once(writer: Writer, kept_for: RetentionSettings, destination_ids: Iterable[int], clock: Clock) -> None:
    """Prune everything that is old enough now: deliveries first, since payloads wait for them."""
    now_us = to_us(clock())
    steps: list[tuple[timedelta | None, Callable[..., Pruned]]] = [
        *((kept_for.deliveries, partial(retention.prune_deliveries, destination_id=each)) for each in destination_ids),
        (kept_for.attempts, retention.prune_attempts),
        (kept_for.payloads, retention.prune_payloads),
        (kept_for.passes, retention.prune_passes),
    ]
    for age, step in steps:
        after: int | None = None if age is None else 0
        while after is not None and age is not None:
            done = await writer.submit_idle(step, before_us=now_us - span_us(age), after=after)
            after = done.after


async def watch_secrets(sources: Iterable[SourceSettings], book: Sources, environ: Mapping[str, str]) -> None:
    """Rebuild a source's provider when a file of its secrets changes. Runs until cancelled.

    A file that cannot be read, or holds nonsense, changes nothing: the old secret stays and the log says so.
    """
    watched = [(source, option_files(source)) for source in sources]
    seen = {source.name: await _marks(files) for source, files in watched}
    while True:
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        for source, files in watched:
            marks = await _marks(files)
            if marks != seen[source.name]:
                seen[source.name] = marks
                _replace_provider(source, book, environ)


def _replace_provider(source: SourceSettings, book: Sources, environ: Mapping[str, str]) -> None:
    try:
        book.change(source.name, provider=build_provider(source, environ))
    except (SecretUnavailable, OptionsInvalid) as error:
        log.error("secret_not_replaced", extra={"source": source.name, "error": str(error)})  # noqa: TRY400
    else:
        log.info("secret_replaced", extra={"source": source.name})


async def _marks(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    return await asyncio.to_thread(lambda: {path: _mark(path) for path in files})


def _mark(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_ino
    return 0, 0


async def wake_on_notice(store: Store, wake: Callable[[], None]) -> None:
    """Wake the dispatcher when another replica has made deliveries. Runs until cancelled; nothing to do on SQLite.

    A lost connection is made again; until then the dispatcher's own slow poll finds them.
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
