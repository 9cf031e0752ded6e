"""A store that is silent, read-only, locked or gone: what the writer and the readers do, and when they go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from half_open import HalfOpenProxy
from ledgers import run_sql
from sqlalchemy.engine import make_url

from gapless.bootstrap.runtime import make_writer
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Via, to_us
from gapless.ledger import Connection, leases, sources, streams, tallies
from gapless.ledger.engine import (
    ConnectionLost,
    ReadOnly,
    Store,
    StoreInvalid,
    StoreLimits,
    StoreUnavailable,
    bind,
    open_store,
)
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.settings import PublicSettings
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
SHORT = StoreLimits(connect_within=timedelta(seconds=1), command_within=timedelta(milliseconds=200), connections=4)


class Recording:
    """A writer on PostgreSQL with one source."""

    def __init__(self, writer: Writer, source: Source, stream_id: int) -> None:
        self.writer, self.source, self.stream_id = writer, source, stream_id

    def push(self, key: str) -> asyncio.Future[int]:
        event = RemoteEvent(key=key, type="invoice.paid", occurred_at=T0, payload=b"{}")
        seen = Sighting(
            source=self.source, stream_id=self.stream_id, event=event, via=Via.WEBHOOK, seen_us=to_us(T0), body=b"{}"
        )
        return self.writer.record((seen,), 2)


@asynccontextmanager
async def recording(url: str) -> AsyncIterator[Recording]:
    store = open_store(url, SHORT)
    recorder = Recorder(await store.write(leases.take_slot, holder="me", receives=True), build_route([]))
    again = bind(leases.take_slot, holder="me", receives=True)
    writer = make_writer(PublicSettings(), store, recorder, Metrics("test"), take_slot=again)
    running = asyncio.create_task(writer.run())
    source_id = await writer.submit(sources.register_source, "acme", "stripe", "hybrid", T0, T0)
    stream_id = await writer.submit(streams.ensure_stream, source_id=source_id, name="")
    provider = Stripe(StripeOptions(api_key=Secret("sk_live_x")))
    source = Source(id=source_id, name="acme", provider=provider, mode=Mode.HYBRID, start=T0)
    try:
        yield Recording(writer, source, stream_id)
    finally:
        writer.close()
        await running
        await store.close()


async def counts(url: str) -> dict[str, int]:
    store = open_store(url)
    try:
        found = await store.read(tallies.totals, source_id=1)
    finally:
        await store.close()
    return {name: count for name, count in found.counts.items() if count}


def commits(proxy: HalfOpenProxy, *, arrives: bool) -> list[bytes]:
    """Let the connection fall silent at its next commit; return a list of what was sent then."""
    sent: list[bytes] = []

    def is_commit(part: bytes) -> bool:
        sent.extend([part] if b"COMMIT" in part else ())
        return bool(sent)

    if arrives:
        proxy.on_sent = is_commit
    else:
        proxy.on_sending = is_commit
    return sent


async def test_a_silent_connection_is_replaced_and_the_webhook_stored(postgres_url: str) -> None:
    async with HalfOpenProxy(postgres_url).serve() as proxy, recording(proxy.url) as it:
        slot = it.writer.recorder.slot
        assert await it.push("a") == 1
        proxy.fall_silent()
        assert await it.push("b") == 1
        assert it.writer.recorder.slot != slot
        assert it.writer.failure is None
    assert await counts(postgres_url) == {"by_webhook": 2, "expected": 2}


async def test_reads_go_on_after_pooled_connections_fell_silent(postgres_url: str) -> None:
    async with HalfOpenProxy(postgres_url).serve() as proxy:
        store = open_store(proxy.url, SHORT)
        try:
            await store.read(streams.streams, source_id=1)
            proxy.fall_silent()
            assert await store.read(streams.streams, source_id=1) == []
        finally:
            await store.close()


async def test_a_server_that_accepts_and_never_answers_is_unavailable(postgres_url: str) -> None:
    proxy = HalfOpenProxy(postgres_url)
    proxy.silent = True
    async with proxy.serve():
        store = open_store(proxy.url, SHORT)
        with pytest.raises(StoreUnavailable, match="connect_within"):
            await store.write(leases.try_write, slot=0)
        with pytest.raises(StoreUnavailable, match="connect_within"):
            await store.read(streams.streams, source_id=1)
        await store.close()


@pytest.mark.parametrize("arrives", [True, False], ids=["committed", "not committed"])
async def test_an_unanswered_commit_is_looked_up_and_counted_once(postgres_url: str, *, arrives: bool) -> None:
    async with HalfOpenProxy(postgres_url).serve() as proxy, recording(proxy.url) as it:
        assert await it.push("a") == 1
        asked = commits(proxy, arrives=arrives)
        both = it.push("a"), it.push("b")
        assert await asyncio.gather(*both) == [0, 1]
        assert asked
    assert await counts(postgres_url) == {"by_webhook": 2, "expected": 2, "duplicates": 1}


async def test_the_locks_of_a_lost_connection_hold_nobody_up(postgres_url: str) -> None:
    """Its backend still has the rows of the tallies and of the event, and would keep them for ten seconds."""
    async with HalfOpenProxy(postgres_url).serve() as proxy, recording(proxy.url) as it:
        await it.push("a")
        asked = commits(proxy, arrives=False)
        assert await it.push("b") == 1
        assert await it.push("c") == 1
        assert asked
    assert await counts(postgres_url) == {"by_webhook": 3, "expected": 3}


async def test_a_failover_to_read_only_heals_with_new_sessions(postgres_url: str, postgres_server: str) -> None:
    name = make_url(postgres_url).database
    store = open_store(postgres_url, SHORT)
    try:
        await store.write(leases.try_write, slot=0)
        await run_sql(postgres_server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await make_session_read_only(store)
        with pytest.raises(ReadOnly, match="standby"):
            await store.write(leases.try_write, slot=0)
        with pytest.raises(ReadOnly, match="primary server"):
            await store.write(leases.try_write, slot=0)
        await run_sql(postgres_server, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await store.write(leases.try_write, slot=0)
    finally:
        await store.close()


async def make_session_read_only(store: Store) -> None:
    """Make the store's present session read-only, as the old primary is after a failover."""

    def read_only(connection: Connection) -> None:
        connection.exec_driver_sql("SET default_transaction_read_only = on")

    await store.write(read_only)


async def test_a_locked_table_is_a_conflict_that_says_what_to_do(postgres_url: str) -> None:
    session = await asyncpg.connect(postgres_url)
    store = open_store(postgres_url, SHORT)
    try:
        async with session.transaction():
            await session.execute("LOCK TABLE event")
            with pytest.raises(StoreUnavailable, match="pg_stat_activity"):
                await store.write(leases.try_write, slot=0)
        await store.write(leases.try_write, slot=0)
    finally:
        await session.close()
        await store.close()


async def test_the_listening_connection_notices_silence(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapless.ledger.engine.postgres.LISTEN_CHECK_S", 0.05)
    async with HalfOpenProxy(postgres_url).serve() as proxy:
        store = open_store(proxy.url, SHORT)
        heard = asyncio.Event()
        try:
            listening = asyncio.create_task(store.listen("gapless_test", lambda _: heard.set()))
            while not heard.is_set():
                await run_sql(postgres_url, "NOTIFY gapless_test")
                await asyncio.sleep(0.01)
            proxy.fall_silent()
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(listening, 20)
        finally:
            await store.close()


async def test_every_session_has_limits_and_keepalives(postgres_url: str) -> None:
    names = (
        "idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "tcp_keepalives_idle",
        "tcp_user_timeout",
    )  # fmt: skip
    async with HalfOpenProxy(postgres_url).serve() as proxy:
        store = open_store(postgres_url, SHORT)
        try:
            for run in (store.read, store.write):
                shown = await run(lambda c: [c.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names[:3]])
                assert shown == ["10s", "5s", "200ms"]
        finally:
            await store.close()
    del proxy


async def test_a_process_opens_no_more_connections_than_configured(postgres_url: str) -> None:
    store = open_store(postgres_url, SHORT)
    busy = "SELECT pg_sleep(0.05), count(*) FROM pg_stat_activity WHERE application_name = 'gapless'"
    try:
        await store.write(leases.try_write, slot=0)
        listening = asyncio.create_task(store.listen("x", lambda _: None))
        found = await asyncio.gather(*(store.read(lambda c: c.exec_driver_sql(busy).one()[1]) for _ in range(8)))
        assert max(found) <= SHORT.connections
        listening.cancel()
    finally:
        await store.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_addresses_in_the_style_of_libpq_work(postgres_url: str, scheme: str) -> None:
    url = postgres_url.replace("postgresql", scheme, 1)
    url += ("&" if "?" in url else "?") + "application_name=shop&sslmode=prefer"
    store = open_store(url, SHORT)
    try:
        shown = await store.read(lambda c: c.exec_driver_sql("SHOW application_name").scalar_one())
        assert shown == "shop"
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("parameter", "advice"),
    [
        ("statement_cache_size=0", "pool_mode = session"),
        ("prepared_statement_cache_size=0", "pool_mode = session"),
        ("connect_timeout=3", "set connect_within"),
        ("channel_binding=require", "remove it"),
    ],
)
async def test_other_parameters_are_refused_in_one_sentence(parameter: str, advice: str) -> None:
    with pytest.raises(StoreInvalid, match=advice) as refused:
        open_store(f"postgresql://u:hush@h/d?{parameter}")
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_lost_connection_leaves_no_doubt_before_its_commit(postgres_url: str) -> None:
    async with HalfOpenProxy(postgres_url).serve() as proxy:
        store = open_store(proxy.url, SHORT)
        try:
            await store.write(leases.try_write, slot=0)
            proxy.fall_silent()
            with pytest.raises(ConnectionLost) as lost:
                await store.write(leases.try_write, slot=0)
            assert lost.value.uncertain is None
        finally:
            await store.close()
