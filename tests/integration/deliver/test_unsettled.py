"""Dead letters by filter: listed page by page, counted, sent again and discarded, whatever else is pending."""

from typing import Any

import pytest
from sqlalchemy import event, select, text, update

from gapless.domain import Via, system_clock, to_us
from gapless.ledger import attempts, unsettled
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.tables import DELIVERY, EVENT
from gapless.ledger.unsettled import UnsettledFilter

pytestmark = pytest.mark.anyio
DEAD = UnsettledFilter(state=DeliveryState.DEAD)


NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
EVENTS = f"""INSERT INTO event (seq, source_id, stream_id, key, type, occurred_us, first_seen_us, via) {NUMBERS}
SELECT i, :source, :stream, 'e' || i, 't' || (i % 10), i, 1, 'webhook' FROM n"""
OWED = f"""INSERT INTO delivery (destination_id, event_seq, state, next_us, created_us, done_us, reason) {NUMBERS}
SELECT :destination, i, CASE WHEN i > :pending THEN 'pending' WHEN i > :dead THEN 'dead' ELSE 'delivered' END,
1, 1, 5, 'timeout' FROM n"""


async def many(setup: Any, count: int = 40_000, *, dead: int = 300, pending: int = 20_000) -> None:
    """Fill the ledger: the last events are pending, and those before them dead."""
    ids = {"source": setup.source.id, "stream": setup.stream_id, "destination": setup.destination_id}
    values = {**ids, "count": count, "pending": count - pending, "dead": count - pending - dead}

    def fill(connection: Any) -> int:
        connection.execute(text(EVENTS), values)
        connection.execute(text(OWED), values)
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
        return 1

    await setup.writer.submit(fill)


async def plans(setup: Any, run: Any) -> list[str]:
    """Return the steps of the plans that read `delivery` or `event`, as each database tells them."""

    def explained(connection: Any) -> list[str]:
        executed: list[tuple[str, Any]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            executed.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        run(connection)
        event.remove(connection, "before_cursor_execute", note)
        prefix = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        steps = [connection.exec_driver_sql(prefix + text_, values).all() for text_, values in executed]
        return [str(step[-1]) for each in steps for step in each]

    lines: list[str] = await setup.store.read(explained)
    return [line for line in lines if "delivery" in line or "event" in line]


CHOICES = [
    DEAD,
    UnsettledFilter(state=DeliveryState.DEAD, sources=("acme",), types=("t1", "t2*"), reason="timeout", since_us=1),
    UnsettledFilter(state=DeliveryState.DEAD, destinations=("app",), until_us=9, object_key="cus_1"),
]


@pytest.mark.parametrize("chosen", CHOICES)
async def test_nothing_that_is_pending_is_read_for_dead_letters(setup: Any, chosen: UnsettledFilter) -> None:
    await many(setup)

    def run(connection: Any) -> None:
        unsettled.page(connection, chosen, after=(4, 1), limit=50)
        unsettled.extent(connection, chosen)
        unsettled.batch(connection, chosen, (4, 1), 50)

    found = await plans(setup, run)
    assert [line for line in found if "ix_delivery_waiting" in line], found
    scans = ("ix_delivery_owing", "ix_delivery_due", "Seq Scan on delivery", "Seq Scan on event", "SCAN delivery")
    bad = [line for line in found if any(scan in line for scan in scans) and "ix_delivery_waiting" not in line]
    assert bad == []


async def test_pages_show_each_dead_letter_once(setup: Any) -> None:
    await many(setup, 300, dead=95, pending=100)
    shown: list[str] = []
    after = unsettled.START
    while rows := await setup.store.read(unsettled.page, DEAD, after=after, limit=10):
        shown += [row.key for row in rows]
        position = unsettled.read_position(rows[-1].position)
        assert position is not None
        after = position
    assert shown == [f"e{n}" for n in range(106, 201)]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 95),
        ({"types": ("t1",)}, 9),
        ({"types": ("t*",)}, 95),
        ({"types": ("T*", "x")}, 0),
        ({"sources": ("other",)}, 0),
        ({"sources": ("acme",), "destinations": ("app",), "reason": "timeout"}, 95),
        ({"reason": "gone"}, 0),
        ({"since_us": 6}, 0),
        ({"until_us": 6}, 95),
        ({"object_key": "cus_1"}, 0),
        ({"seqs": (106, 107, 1, 300)}, 2),
    ],
)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_each_part_of_a_filter_narrows_the_choice(setup: Any, changes: dict[str, Any], count: int) -> None:
    await many(setup, 300, dead=95, pending=100)
    chosen = UnsettledFilter(state=DeliveryState.DEAD, **changes)
    assert (await setup.store.read(unsettled.extent, chosen)).count == count
    assert len(await setup.store.read(unsettled.page, chosen, limit=1000)) == count


async def test_batches_go_on_after_a_cursor_and_look_at_few_rows(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsettled, "LOOKED", 20)
    await many(setup, 300, dead=95, pending=100)
    chosen = UnsettledFilter(state=DeliveryState.DEAD, types=("t1",))
    found, after, has_more, rounds = [], unsettled.START, True, 0
    while has_more:
        batch = await setup.store.read(unsettled.batch, chosen, after, 3)
        found += batch.keys
        after, has_more, rounds = batch.cursor, batch.has_more, rounds + 1
    assert [seq for seq, _ in found] == [n for n in range(106, 201) if n % 10 == 1]
    assert rounds >= 5


async def test_what_changed_meanwhile_is_left_alone(setup: Any) -> None:
    seqs = list((await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))).values())
    await setup.writer.submit(lambda c: c.execute(update(DELIVERY).values(state="dead", reason="timeout")).rowcount)
    keys = [(seq, setup.destination_id) for seq in seqs]
    await setup.writer.submit(
        lambda c: c.execute(update(DELIVERY).where(DELIVERY.c.event_seq == seqs[0]).values(state="delivered")).rowcount
    )
    again = await setup.writer.submit(unsettled.send_again, keys, DeliveryState.DEAD, 7)
    assert (again, [row.state for row in await setup.deliveries()]) == (1, ["delivered", "pending"])
    gone = await setup.writer.submit(unsettled.discard, keys, DeliveryState.DEAD, 7, "by ann: x")
    assert (gone, len(await setup.deliveries())) == (0, 2)


async def test_a_discarded_dead_letter_tells_who_gave_it_up_and_why(setup: Any) -> None:
    (seq,) = (await setup.record(setup.sighting("evt_1", Via.WEBHOOK))).values()
    await setup.writer.submit(lambda c: c.execute(update(DELIVERY).values(state="dead", reason="timeout")).rowcount)
    keys = [(seq, setup.destination_id)]
    gone = await setup.writer.submit(
        unsettled.discard, keys, DeliveryState.DEAD, to_us(system_clock()), "by ann: the CRM is gone"
    )
    assert (gone, await setup.deliveries()) == (1, [])
    (row,) = await setup.store.read(attempts.of_event, seq)
    assert (row.outcome, row.detail, row.answer) == ("discarded", "by ann: the CRM is gone", None)
    assert await setup.store.read(lambda c: c.execute(select(EVENT.c.key)).scalar()) == "evt_1"
