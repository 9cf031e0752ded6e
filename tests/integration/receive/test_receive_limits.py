"""Bodies that are too large, cut or slow; unavailable stores; webhooks that no store accepts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import text

from gapless.daemon.process import receive_options
from gapless.domain import Mode, Source
from gapless.ledger.engine import BadData, Store
from gapless.settings import PublicSettings, Settings
from gapless_reconcilers.kit.contract import Reply, Secret
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SMALL = {"body_limit": 2_000, "body_within": timedelta(seconds=0.3)}


async def in_pieces(body: bytes, size: int = 300) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]
        await asyncio.sleep(0.002)


async def raw_exchange(setup: Any, *parts: bytes, half_close: bool = False, wait_s: float = 0.05) -> bytes:
    """Send bytes as they are; return all that comes back until the server closes or says no more."""
    host, port = setup.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(wait_s)
        if half_close:
            return b""
        async with asyncio.timeout(60):
            return await reader.read(1 << 16)
    finally:
        writer.close()


def head(setup: Any, body: bytes, *, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    signature = setup.signature(body)["Stripe-Signature"]
    return f"POST /webhooks/acme HTTP/1.1\r\nHost: x\r\nStripe-Signature: {signature}\r\n{framing}\r\n\r\n".encode()


async def test_a_body_over_the_limit_is_a_413(serve: Any) -> None:
    async with serve(**SMALL) as setup:
        assert (await setup.post(setup.event("evt_1", filler="x" * 2_000))).status_code == 413
        assert (await setup.post(setup.event("evt_2", filler="x" * 1_000))).status_code == 200
        assert await setup.events() == {"evt_2": 1}
        assert setup.counted("webhooks_total", source="acme", outcome="too_large") == 1


async def test_a_body_in_chunks_is_taken_whole_or_refused_when_it_is_over_the_limit(serve: Any) -> None:
    async with serve(**SMALL) as setup:
        for key, filler, status in (("evt_1", 1_000, 200), ("evt_2", 10_000, 413)):
            body = setup.event(key, filler="x" * filler)
            answer = await setup.client.post("/webhooks/acme", content=in_pieces(body), headers=setup.signature(body))
            assert answer.status_code == status
        assert await setup.events() == {"evt_1": 1}


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes(serve: Any) -> None:
    async with serve(**SMALL) as setup:
        answer = await raw_exchange(setup, head(setup, b"", length=10**12) + b"x")
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer


@pytest.mark.parametrize("length", [None, 5_000], ids=["chunked", "declared"])
async def test_trap_convoy_a_cut_body_is_never_taken_for_a_whole_one(serve: Any, length: int | None) -> None:
    """The trap of a length-limited read that takes a cut chunked body for a whole one."""
    async with serve() as setup:
        body = setup.event("evt_1")
        part = b"%x\r\n%b\r\n" % (len(body), body) if length is None else body
        await raw_exchange(setup, head(setup, body, length=length), part, half_close=True)
        await setup.counts("webhooks_total", 1, source="acme", outcome="cut")
        assert await setup.events() == {}


async def test_a_sender_that_dawdles_is_sent_away(serve: Any) -> None:
    async with serve(**SMALL) as setup:
        answer = await raw_exchange(setup, head(setup, b"", length=100), b"{")
        assert answer.startswith(b"HTTP/1.1 408")


async def test_a_declared_length_short_of_the_body_records_nothing(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        answer = await raw_exchange(setup, head(setup, body, length=len(body) - 5) + body)
        assert answer.startswith(b"HTTP/1.1 4")
        assert await setup.events() == {}


async def test_a_sender_that_leaves_while_it_waits_breaks_nothing(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        await raw_exchange(setup, head(setup, body, length=len(body)) + body, half_close=True, wait_s=0)
        assert (await setup.post(setup.event("evt_2"))).status_code == 200
        assert set(await setup.events()) >= {"evt_2"}


async def test_a_full_queue_is_a_503_with_retry_after(serve: Any) -> None:
    async with serve(settings=Settings(public=PublicSettings(queue_max=2)), writes=False) as setup:
        setup.receiver.stream_ids._ids[setup.source.id, ""] = 1
        waiting = [asyncio.create_task(setup.post(setup.event(f"evt_{n}"))) for n in range(2)]
        await setup.counts("recorder_queue", 2)
        answer = await setup.post(setup.event("evt_3"))
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert setup.counted("recorder_queue") == 2
        assert setup.counted("webhooks_total", source="acme", outcome="unavailable") == 1
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()


async def test_too_little_free_disk_is_a_503_until_there_is_room_again(serve: Any, store: Store) -> None:
    """SQLite only: the disk of a PostgreSQL server is on another machine."""
    async with serve() as setup:
        unseen = store.free_bytes() is None
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(setup.receiver.admission.watch(store, 1 << 60, timedelta(seconds=0.01)))
            await asyncio.sleep(0.1)
            assert (await setup.post(setup.event("evt_1"))).status_code == (200 if unseen else 503)
            watch.cancel()
        setup.receiver.admission.note_free(store.free_bytes(), 1)
        assert (await setup.post(setup.event("evt_1"))).status_code == 200


async def test_a_store_that_refuses_to_write_is_no_200_and_then_it_goes_on(
    serve: Any, store: Store, store_url: str
) -> None:
    """SQLite: its file may not grow (SQLITE_FULL, as on a full disk). PostgreSQL: the server ends our connections."""
    async with serve() as setup:
        assert (await setup.post(setup.event("evt_0"))).status_code == 200
        if store.dialect == "sqlite":
            await store.write(lambda c: c.execute(text("PRAGMA max_page_count = 1")))
            statuses = [
                (await setup.post(setup.event(f"evt_big_{n}", filler="x" * 100_000))).status_code for n in range(3)
            ]
            await store.write(lambda c: c.execute(text("PRAGMA max_page_count = 1000000")))
        else:
            statuses = await while_connections_end(setup, store_url)
        assert (503 in statuses) == (store.dialect == "sqlite")  # a lost connection is replaced at once
        assert setup.counted("webhooks_total", source="acme", outcome="unavailable") == statuses.count(503)
        assert (await setup.post(setup.event("evt_after"))).status_code == 200
        assert "evt_after" in await setup.events()


async def while_connections_end(setup: Any, store_url: str) -> list[int]:
    admin = await asyncpg.connect(store_url)
    try:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await admin.close()
    return [(await setup.post(setup.event(f"evt_cut_{n}"))).status_code for n in range(3)]


class Leaky(Stripe):
    """A provider that accepts an event which no store can hold, past every check of the contract."""

    def read_webhook(self, request: Any, now: Any, evidence: Any = None) -> Reply:  # noqa: ARG002
        reply = super().read_webhook(request, now)
        for event in reply.events:
            if event.type == "poison":
                msgspec.structs.force_setattr(event, "type", "\ud800")
        return reply


async def test_one_unstorable_webhook_of_a_batch_is_quarantined_and_the_others_commit(serve: Any) -> None:
    options = StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_after"),), livemode=False)
    async with serve(provider=Leaky(options)) as setup:
        await setup.post(setup.event("evt_first"))
        poisoned = [setup.post(setup.event(f"evt_{n}", type="poison" if n in (3, 17) else "good")) for n in range(30)]
        statuses = [answer.status_code for answer in await asyncio.gather(*poisoned)]
        assert statuses == [503 if n in (3, 17) else 200 for n in range(30)]
        assert len(await setup.events()) == 29
        assert await setup.quarantined() == ["unstorable"] * 2
        assert setup.counted("webhooks_total", source="acme", outcome="unstorable") == 2


async def test_the_store_really_refuses_what_the_test_calls_unstorable(store: Store) -> None:
    with pytest.raises(BadData):
        await store.write(lambda c: c.execute(text("SELECT :x"), {"x": "\ud800"}))


async def test_a_sender_of_an_endless_body_reads_its_413(serve: Any) -> None:
    """Closing a connection while the sender still sends destroys the answer before it is read."""
    async with serve(body_limit=2_000) as setup:
        host, port = setup.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head(setup, b"", length=2_000_000))
        for _ in range(200):  # whoever sends everything before it reads
            writer.write(b"x" * 10_000)
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_each_source_has_its_own_limit(serve: Any) -> None:
    async with serve(body_limit=2_000, body_limits={"acme": 9_000}) as setup:
        assert (await setup.post(setup.event("evt_1", filler="x" * 5_000))).status_code == 200
        assert (await setup.post(setup.event("evt_2", filler="x" * 10_000))).status_code == 413


def test_the_vendors_maximum_is_the_default() -> None:
    options = receive_options(Settings())
    github = GitHub(GitHubOptions(repository="a/b", hook_id=1))
    sources = [
        Source(id=1, name="x", provider=each, mode=Mode.WEBHOOK, start=NOW)
        for each in (github, Stripe(StripeOptions(api_key=Secret(""))))
    ]
    assert [options.limit_of(each) for each in sources] == [25 << 20, 1_000_000]
    own = replace(options, body_limits={"x": 5})
    assert [own.limit_of(each) for each in sources] == [5, 5]
