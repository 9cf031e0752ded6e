"""With keys, what is stored of payloads is sealed, and what was stored before stays readable."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from keys import FIRST, SECOND, open_sealed, ring_of
from sqlalchemy import Connection, insert, select, update
from world import T0, make_stripe

from gapless.daemon.keys import KeysRefused, take_over
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Via, to_us
from gapless.ledger import deliveries, destinations, events, keyring, missing, quarantine, resealing, sealed, streams
from gapless.ledger import sources as ledger_sources
from gapless.ledger.engine import Store
from gapless.ledger.quarantine import Caps, QuarantinedWebhook
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.sealed import CannotSeal
from gapless.ledger.tables import DELIVERY, EVENT, MISSING, PAYLOAD, QUARANTINE
from gapless.ledger.unreadable import OddRow, set_aside
from gapless.sealing import CLEAR, CannotOpen, KeyMissing, SealBroken
from gapless_reconcilers.kit.contract import RemoteEvent

pytestmark = pytest.mark.anyio
ANY_STORE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what no store can change."""
CANARY = b"canary of a payload"
HEADERS = '{"stripe-signature": "t=1,v1=canary"}'
CAPS = Caps(rows=100, size_bytes=1 << 20)
WHOLE = b'{"events": ["canary 1", "canary 2"], "padding": "' + b"x" * 200 + b'"}'


def body_of(key: str) -> bytes:
    return b'{"id": "%b", "name": "%b", "padding": "%b"}' % (key.encode(), CANARY, b"y" * 300)


def record(
    connection: Connection, *keys: str, source_id: int = 1, whole: bytes | None = None, body: Any = body_of
) -> None:
    """Record events of webhooks; with `whole`, of one webhook."""
    source = Source(id=source_id, name="acme", provider=make_stripe("http://x"), mode=Mode.HYBRID, start=T0)
    stream_id = streams.streams(connection, source_id)[0].id
    seen = [
        Sighting(
            source=source, stream_id=stream_id, via=Via.WEBHOOK, seen_us=to_us(T0), item=item, body=whole or body(key),
            event=RemoteEvent(key=key, type="invoice.paid", occurred_at=T0, payload=body(key)),
            headers=HEADERS,
        )
        for item, key in enumerate(keys)
    ]  # fmt: skip
    Recorder(0, build_route([])).store(connection, seen)


def refuse(connection: Connection, *bodies: bytes) -> None:
    rows = [
        QuarantinedWebhook(
            source_id=1, received_us=to_us(T0) + at, reason="signature", detail="no", headers='[["a", "canary"]]',
            body=body, claims='["evt_claimed"]',
        )
        for at, body in enumerate(bodies)
    ]  # fmt: skip
    quarantine.add(connection, rows, CAPS)


def set_one_aside(connection: Connection) -> None:
    row = OddRow(
        source_id=1, stream_id=1, key="unreadable:1", row=CANARY * 3, problem="no id", occurred_us=1, until_us=2
    )
    set_aside(connection, [row], 5)


def fill(connection: Connection) -> None:
    """Store something of every kind that is sealed."""
    record(connection, "evt_1", "evt_2")
    record(connection, "evt_3", "evt_4", whole=WHOLE)
    refuse(connection, body_of("evt_r"), b"")
    set_one_aside(connection)


def read_all(connection: Connection) -> dict[str, object]:
    """Return what `fill` has stored, as the rest of Gapless reads it."""
    seqs = dict(map(tuple, connection.execute(select(EVENT.c.key, EVENT.c.seq))))
    found: dict[str, object] = {key: events.payload(connection, seq) for key, seq in seqs.items()}
    for entry in quarantine.entries(connection):
        content = quarantine.content(connection, entry.id)
        assert content is not None
        found[f"refused {entry.id}"] = (content[0].body, content[0].headers)
    found["row"] = missing.entries(connection)[0].row
    whole = connection.execute(select(PAYLOAD).where(PAYLOAD.c.id.in_(select(PAYLOAD.c.envelope_id)))).one()
    stored = (whole.body, whole.headers, whole.sealed_by)
    ring = keyring.ring_of(connection)
    found["whole"] = sealed.open_payload(ring, whole.id, 1, sealed.ENVELOPE, stored)
    found["newest"] = [row[:2] for row in events.newest_webhooks(connection, 1, 9)]
    return found


def stored(connection: Connection) -> list[tuple[object, ...]]:
    """Return what lies in the tables, and by which key."""
    columns = {
        PAYLOAD: (PAYLOAD.c.body, PAYLOAD.c.headers), QUARANTINE: (QUARANTINE.c.body, QUARANTINE.c.headers),
        MISSING: (MISSING.c.row,),
    }  # fmt: skip
    return [
        (row.sealed_by, *row[1:])
        for table, content in columns.items()
        for row in connection.execute(select(table.c.sealed_by, *content))
    ]


def expected() -> dict[str, object]:
    clear = {key: (body_of(key), HEADERS if key < "evt_3" else None) for key in ("evt_1", "evt_2", "evt_3", "evt_4")}
    refused = {"refused 1": (body_of("evt_r"), '[["a", "canary"]]'), "refused 2": (b"", '[["a", "canary"]]')}
    newest = [clear["evt_2"], clear["evt_1"]]
    return {**clear, **refused, "row": CANARY * 3, "whole": (WHOLE, HEADERS), "newest": newest}


@pytest.fixture
async def opening(store_url: str) -> Callable[..., Any]:
    """Opens the ledger, which has a source, with the keys of a process."""
    async with with_source(store_url):
        pass

    @asynccontextmanager
    async def opened(*lines: str, seals: bool = True) -> AsyncIterator[Store]:
        store = await open_sealed(store_url, *lines, seals=seals)
        try:
            yield store
        finally:
            await store.close()

    return opened


@asynccontextmanager
async def with_source(url: str) -> AsyncIterator[Store]:
    store = await open_sealed(url)
    for name in ("acme", "other"):
        await store.write(lambda c, name=name: ledger_sources.register_source(c, name, "stripe", "hybrid", T0, T0))
    try:
        yield store
    finally:
        await store.close()


async def test_what_is_sealed_is_read_as_it_came(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(fill)
        assert await store.read(read_all) == expected()
        rows = await store.read(stored)
        assert {row[0] for row in rows} == {"first"}
        assert "canary" not in str(rows)


@ANY_STORE
async def test_without_keys_nothing_is_sealed(opening: Any) -> None:
    async with opening() as store:
        await store.write(fill)
        assert await store.read(read_all) == expected()
        assert {row[0] for row in await store.read(stored)} == {None}


async def test_old_rows_stay_readable_beside_new_ones(opening: Any) -> None:
    async with opening() as store:
        await store.write(record, "evt_old")
    async with opening(FIRST) as store:
        await store.write(record, "evt_first")
    async with opening(SECOND, FIRST) as store:
        await store.write(record, "evt_second")
        for seq, key in enumerate(("evt_old", "evt_first", "evt_second"), 1):
            assert await store.read(events.payload, seq=seq) == (body_of(key), HEADERS)
        assert [row[0] for row in await store.read(stored)] == [None, "first", "second"]


async def test_a_delivery_without_its_key_has_no_payload_and_says_why(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(record, "evt_1")
    async with opening(SECOND) as store:
        claim = deliveries.DeliveryClaim(destination_id=1, seq=1, attempts=0, lease_us=9)
        ((_, event),) = await store.read(deliveries.load, claims=[claim])
        assert (event.payload, event.headers is None) == (None, True)
        assert event.unopened is not None
        assert "'first', which is not configured" in event.unopened
        with pytest.raises(KeyMissing):
            await store.read(events.payload, seq=1)


def swap(connection: Connection, first: int, second: int) -> None:
    """Put each of two sealed bodies into the row of the other."""
    bodies = dict(map(tuple, connection.execute(select(PAYLOAD.c.id, PAYLOAD.c.body))))
    for payload_id, body in ((first, bodies[second]), (second, bodies[first])):
        connection.execute(update(PAYLOAD).where(PAYLOAD.c.id == payload_id).values(body=body))


@ANY_STORE
async def test_a_body_in_another_row_does_not_open(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(record, "evt_1", "evt_2")
        first, second = await store.read(lambda c: c.execute(select(PAYLOAD.c.id)).scalars().all())
        await store.write(swap, first, second)
        for seq in (1, 2):
            with pytest.raises(SealBroken):
                await store.read(events.payload, seq=seq)


@ANY_STORE
async def test_an_event_that_points_to_the_payload_of_another_does_not_open(opening: Any) -> None:
    """Of the same source, or of another one."""
    async with opening(FIRST) as store:
        await store.write(record, "evt_1")
        await store.write(record, "evt_2")
        await store.write(record, "evt_1", source_id=2)
        ids = await store.read(lambda c: c.execute(select(EVENT.c.payload_id).order_by(EVENT.c.seq)).scalars().all())
        for seq, other in ((1, ids[1]), (3, ids[0])):
            await store.write(
                lambda c, seq=seq, other=other: (
                    c.execute(update(EVENT).where(EVENT.c.seq == seq).values(payload_id=other)).rowcount
                )
            )
            with pytest.raises(SealBroken):
                await store.read(events.payload, seq=seq)


@ANY_STORE
async def test_nothing_is_recorded_in_the_clear_once_it_was_sealed(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(fill)
    async with opening() as store:
        for work in (lambda c: record(c, "evt_9"), lambda c: refuse(c, b"x"), set_one_aside):
            with pytest.raises(CannotSeal, match="no key is configured"):
                await store.write(work)


@ANY_STORE
async def test_a_key_with_the_id_of_another_is_not_used(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(record, "evt_1")
    async with opening(f"first:{'3d' * 32}") as store:
        with pytest.raises(CannotSeal, match="give it another id"):
            await store.write(record, "evt_2")
        with pytest.raises(KeyMissing):
            await store.read(events.payload, seq=1)


async def rotate(store: Store, *, limit: int = 2, stops_after: int = 1 << 30) -> int:
    """Seal everything with the current key, in batches of `limit`; return how many rows were."""
    count = 0
    for key_id in await store.read(resealing.keys_to_leave):
        for table in sealed.TABLES:
            after: int | None = 0
            while after is not None and count < stops_after:
                done = await store.write(resealing.reseal, name=table, key_id=key_id, after=after, limit=limit)
                assert done.broken == 0
                count, after = count + done.count, done.after
    return count


async def test_a_rotation_seals_everything_with_the_new_key(opening: Any) -> None:
    async with opening() as store:
        await store.write(record, "evt_0")
    async with opening(FIRST) as store:
        await store.write(fill)
        await store.write(lambda c: c.execute(PAYLOAD.delete().where(PAYLOAD.c.id < 0)).rowcount)
    async with opening(SECOND, FIRST) as store:
        assert await rotate(store) == 9
        assert await store.read(sealed.needed) == {"second"}
        assert {row[0] for row in await store.read(stored)} == {"second"}
        assert await store.read(sealed.first_broken, key_ids=["second"]) is None
        assert await rotate(store) == 0
    async with opening(SECOND) as store:
        found = await store.read(read_all)
        assert found.pop("evt_0") == (body_of("evt_0"), HEADERS)
        assert {key: found[key] for key in expected() if key != "newest"} == {
            key: value for key, value in expected().items() if key != "newest"
        }


@pytest.mark.parametrize("stops_after", [1, 3, 5])
async def test_a_rotation_that_was_cut_goes_on(opening: Any, stops_after: int) -> None:
    async with opening() as store:
        await store.write(fill)
    async with opening(FIRST) as store:
        done = await rotate(store, limit=1, stops_after=stops_after)
        assert await store.read(read_all) == expected()
        assert done + await rotate(store) == 8
        assert {row[0] for row in await store.read(stored)} == {"first"}
        assert await store.read(read_all) == expected()


@ANY_STORE
async def test_sealing_can_be_given_up(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(fill)
    async with opening(FIRST, seals=False) as store:
        await store.write(record, "evt_9")
        assert await rotate(store) == 8
        assert {row[0] for row in await store.read(stored)} == {None}
    async with opening() as store:
        found = await store.read(read_all)
        assert found.pop("evt_9") == (body_of("evt_9"), HEADERS)
        assert found | {"newest": expected()["newest"]} == expected()


async def test_keys_are_counted_with_what_needs_them(opening: Any) -> None:
    async with opening() as store:
        await store.write(record, "evt_0")
    async with opening(FIRST) as store:
        await store.write(fill)
        found = {use.id: dict(use.rows) for use in await store.read(sealed.uses)}
    assert found == {
        "first": {"payload": 5, "quarantine": 2, "missing": 1},
        CLEAR: {"payload": 1, "quarantine": 0, "missing": 0},
    }


async def test_a_key_that_rows_need_is_not_given_up(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(record, "evt_1")
        ring = await store.read(keyring.ring_of)
        for lines in ((SECOND,), (f"first:{'3d' * 32}", SECOND)):
            with pytest.raises(KeysRefused, match="rows need the key first"):
                await store.write(take_over, ring=ring, wanted=ring_of(*lines), now_us=2)
        await store.write(take_over, ring=ring, wanted=ring_of(SECOND, FIRST), now_us=2)
        await store.write(record, "evt_2")
        assert [row[0] for row in await store.read(stored)] == ["first", "second"]
        await rotate(store)
        await store.write(take_over, ring=ring, wanted=ring_of(SECOND), now_us=3)
        assert await store.read(events.payload, seq=1) == (body_of("evt_1"), HEADERS)


@ANY_STORE
async def test_a_purged_webhook_needs_no_key(opening: Any) -> None:
    async with opening(FIRST) as store:
        await store.write(refuse, body_of("evt_r"))
        await store.write(quarantine.purge, source_id=1, ids=[1], now_us=5)
        assert await store.read(sealed.needed) == set()
        content = await store.read(quarantine.content, quarantine_id=1)
        assert content is not None
        assert (content[0].body, content[0].headers) == (b"", "[]")


@ANY_STORE
async def test_a_sealed_refused_webhook_still_names_events(opening: Any) -> None:
    key = "evt_1MqqbKLt4dXK03v5qaIbiNCC"
    wanted = [RemoteEvent(key=key, type="x", occurred_at=T0, payload=b"")]
    async with opening(FIRST) as store:
        await store.write(refuse, b'{"id": "%b"}' % key.encode())
        assert await store.read(quarantine.named_in, source_id=1, events=wanted, since_us=0) == {key}
    async with opening(SECOND) as store:
        assert await store.read(quarantine.named_in, source_id=1, events=wanted, since_us=0) == set()


async def test_a_claim_counts_the_bytes_that_it_loads(opening: Any) -> None:
    """Not the few that are stored of a body that compresses well."""

    def large(key: str) -> bytes:
        return b'{"id": "%b", "zeros": "%b"}' % (key.encode(), b"0" * (3 << 20))

    def owe(connection: Connection) -> None:
        destination_id = destinations.register_destination(connection, "app", T0)
        record(connection, "evt_1", "evt_2", body=large)
        rows = [{"destination_id": destination_id, "event_seq": seq, "next_us": 0, "created_us": 0} for seq in (1, 2)]
        connection.execute(insert(DELIVERY), rows)

    async with opening(FIRST) as store:
        await store.write(owe)
        claims = await store.write(deliveries.claim, destination_id=1, now_us=9, limit=9, lease_us=9)
    assert [claim.seq for claim in claims] == [1]


async def test_the_keys_that_are_needed_are_found_by_their_index(sqlite_url: str) -> None:
    store = await open_sealed(sqlite_url, FIRST)
    try:
        for table in sealed.TABLES:
            query = f"SELECT sealed_by FROM {table} WHERE sealed_by IS NOT NULL AND sealed_by > 'a' ORDER BY 1 LIMIT 1"
            plan = await store.read(lambda c, query=query: str(c.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()))
            assert f"USING COVERING INDEX ix_{table}_sealed_by" in plan
    finally:
        await store.close()


@ANY_STORE
async def test_what_does_not_open_says_so_and_stays(opening: Any) -> None:
    def damage(connection: Connection) -> None:
        connection.execute(update(PAYLOAD).where(PAYLOAD.c.id > 0).values(body=b"damaged"))

    async with opening(FIRST) as store:
        await store.write(record, "evt_1")
        await store.write(damage)
        said = await store.read(sealed.first_broken, key_ids=["first"])
        assert said is not None
        assert said.startswith("row ")
    async with opening(SECOND, FIRST) as store:
        done = await store.write(resealing.reseal, name="payload", key_id="first")
        assert (done.count, done.broken) == (0, 1)
        assert [row[0] for row in await store.read(stored)] == ["first"]
        with pytest.raises(CannotOpen):
            await store.read(events.payload, seq=1)
