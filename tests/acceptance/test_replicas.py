"""Two replicas on PostgreSQL: one that is paused until its lease has expired changes nothing afterwards."""

import asyncio
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy import Row, select

from gapless.ledger import Connection, sources
from gapless.ledger.leases import SOURCE_LEASE
from gapless.ledger.tables import PASS, SLICE, SOURCE, STREAM
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
State = dict[str, list[Row[tuple[object, ...]]]]


async def test_a_replica_with_an_expired_lease_writes_no_state(postgres_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), retries_s=(1.0,) * 30)
    start = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with Consumer().serve() as consumer, fake.serve() as api:
        first, second = (Gapless(tmp_path, postgres_url, api, consumer, source=f"start = {start}") for _ in range(2))
        async with running(first), running(second):
            fake.faults.drop, fake.faults.answer_delay_s = 0.5, 0.3
            asleep, epoch = await _pause_within_a_run(first, second)
            awake = second if asleep is first else first
            fake.add_endpoint(awake.public, secret=WEBHOOK_SECRET)
            for _ in range(60):
                fake.emit("invoice.paid")
            truth = {event.key for event in fake.events}
            await until(lambda: truth <= consumer.ids, within_s=SOURCE_LEASE.total_seconds() + 120)
            _, taken_over = await _pause_within_a_run(awake)
            before, said = await _state(asleep), len(asleep.log.read_text())
            asleep.signal(signal.SIGCONT)
            await until(lambda: _has_ended_its_run(asleep, said), within_s=SOURCE_LEASE.total_seconds() * 0.9)
            after = await _state(asleep)
            awake.signal(signal.SIGCONT)
            last = fake.emit("invoice.paid")
            await until(lambda: last.key in consumer.ids)

            assert taken_over > epoch
            assert after == before
            assert await awake.ledger_ids() == consumer.ids == truth | {last.key}
            assert consumer.changed_ids == {}


async def _pause_within_a_run(*daemons: Gapless) -> tuple[Gapless, int]:
    """Pause the daemon that holds the source's lease; return it, and the lease's epoch."""
    for _ in range(50):
        await until(lambda: _holder(daemons), every_s=0.02)
        held = await _holder(daemons)
        if held is None:
            continue
        held[0].signal(signal.SIGSTOP)
        await asyncio.sleep(2)  # what it had sent to the database is done, on a busy machine too
        if await _holder(daemons) == held:
            return held
        held[0].signal(signal.SIGCONT)
    raise AssertionError("no process was ever caught within a run")


async def _holder(daemons: Sequence[Gapless]) -> tuple[Gapless, int] | None:
    row = await daemons[0].read(lambda connection: sources.source_row(connection, 1))
    holds = (each for each in daemons if each.process and f":{each.process.pid}:" in (row["lease_holder"] or ""))
    return next(((each, row["lease_epoch"]) for each in holds), None)


async def _state(daemon: Gapless) -> State:
    """Return every row that only the holder of the lease may write."""

    def rows(connection: Connection) -> State:
        tables = (SOURCE, STREAM, PASS, SLICE)
        return {table.name: list(connection.execute(select(table).order_by(table.c.id))) for table in tables}

    return await daemon.read(rows)


def _has_ended_its_run(daemon: Gapless, said: int) -> bool:
    """Whether it says so, after the first `said` characters: the lease is lost, or the connection on which it wrote."""
    log = daemon.log.read_text()[said:]
    return "lease_lost" in log or "run_ended" in log
