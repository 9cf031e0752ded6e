"""Dead letters by filter: listed page by page, counted, sent again and discarded, whatever else is pending."""

from functools import partial
from typing import Any

import pytest
from plans import fill, plans, whole
from sqlalchemy import select, update

from gapless.domain import Via, system_clock, to_us
from gapless.ledger import attempts, unsettled
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.tables import DELIVERY, EVENT
from gapless.ledger.unsettled import UnsettledFilter

pytestmark = pytest.mark.anyio
DEAD = UnsettledFilter(state=DeliveryState.DEAD)


CHOICES = [
    DEAD,
    UnsettledFilter(state=DeliveryState.DEAD, sources=("acme",), types=("t1", "t2*"), reason="timeout", since_us=1),
    UnsettledFilter(state=DeliveryState.DEAD, destinations=("app",), until_us=9, object_key="cus_1"),
]


async def test_nothing_that_is_pending_is_read_for_dead_letters(setup: Any) -> None:
    await fill(setup)
    for chosen in CHOICES:
        steps = (
            partial(unsettled.page, chosen=chosen, after=(4, 1), limit=50),
            partial(unsettled.extent, chosen=chosen),
            partial(unsettled.batch, chosen=chosen, after=(4, 1), limit=50),
        )
        for step in steps:
            found = await plans(setup, step)
            assert [line for line in found if "ix_delivery_unsettled" in line or "ix_delivery_since" in line], found
            assert whole(found, "delivery", "event") == []
            assert [line for line in found if "ix_delivery_due" in line or "ix_delivery_oldest" in line] == []


async def test_pages_show_each_dead_letter_once(setup: Any) -> None:
    await fill(setup, 300, dead=95, pending=100)
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
    await fill(setup, 300, dead=95, pending=100)
    chosen = UnsettledFilter(state=DeliveryState.DEAD, **changes)
    assert (await setup.store.read(unsettled.extent, chosen)).count == count
    assert len(await setup.store.read(unsettled.page, chosen, limit=1000)) == count


async def test_batches_go_on_after_a_cursor_and_look_at_few_rows(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsettled, "LOOKED", 20)
    await fill(setup, 300, dead=95, pending=100)
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
