"""Dead letters by filter, as people ask for them: counted first, sent again, or given up with a reason."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from gapless.domain import Via, to_us
from gapless.ledger import audit_log
from gapless.ledger.tables import ATTEMPT, DELIVERY, EVENT
from gapless.operations.context import OperationForbidden, OperationRefused
from gapless.operations.principals import AccessRole, Principal
from gapless.operations.registry import perform

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


@pytest.fixture
async def shop(console: Any) -> Any:
    """Four dead letters of `shop`: evt_0 and evt_1 of `acme`, evt_2 and evt_3 of `other`; one died each hour."""
    await console.add_source("other")
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_0", "evt_1")
    await console.record(Via.WEBHOOK, "evt_2", "evt_3", source="other")
    for n in range(4):
        seq = await console.sql(select(EVENT.c.seq).where(EVENT.c.key == f"evt_{n}"))
        died = {"state": "dead", "reason": "timeout", "attempts": 15, "done_us": to_us(console.now[0] - n * HOUR)}
        change = update(DELIVERY).where(DELIVERY.c.event_seq == seq).values(**died)
        await console.context.runtime.write(lambda c, change=change: c.execute(change).rowcount)
    return console


async def dead(console: Any) -> list[str]:
    query = select(EVENT.c.key).join(DELIVERY, DELIVERY.c.event_seq == EVENT.c.seq).where(DELIVERY.c.state == "dead")
    keys = await console.context.read(lambda c: c.execute(query.order_by(EVENT.c.key)).scalars().all())
    return [key.removeprefix("evt_") for key in keys]


@pytest.mark.parametrize(
    ("args", "left"),
    [
        ({"source": "acme"}, ["2", "3"]),
        ({"types": ["invoice.*"]}, []),
        ({"types": ["charge.failed"]}, ["0", "1", "2", "3"]),
        ({"since": -2.5, "until": -0.5}, ["0", "3"]),
        ({"reason": "consumer_4xx"}, ["0", "1", "2", "3"]),
        ({"object": "in_1"}, ["0", "1", "2", "3"]),
        ({"keys": ["evt_3"], "source": "other"}, ["0", "1", "2"]),
    ],
)
async def test_a_filter_chooses_what_is_sent_again(shop: Any, args: dict[str, Any], left: list[str]) -> None:
    args = {name: (shop.now[0] + value * HOUR).isoformat() if name in ("since", "until") else value
            for name, value in args.items()}  # fmt: skip
    count = 4 - len(left)
    assert await perform(shop.context, "dead.requeue", {**args, "dry_run": True}) == {"count": count}
    assert (await dead(shop), await shop.audited()) == (["0", "1", "2", "3"], [])
    assert await perform(shop.context, "dead.requeue", args) == {"requeued": count}
    assert await dead(shop) == left


async def test_trap_what_was_requeued_has_all_its_attempts_again(shop: Any) -> None:
    await perform(shop.context, "dead.requeue", {"source": "acme"})
    query = select(func.max(DELIVERY.c.attempts)).where(DELIVERY.c.state == "pending")
    assert await shop.sql(query) == 0


async def test_discarding_needs_a_reason_and_leaves_a_trace(shop: Any) -> None:
    for args in ({}, {"note": "  "}):
        with pytest.raises(OperationRefused, match="note"):
            await perform(shop.context, "dead.discard", args)
    done = await perform(shop.context, "dead.discard", {"source": "acme", "note": "the CRM is gone"})
    assert (done, await dead(shop)) == ({"discarded": 2}, ["2", "3"])
    (row,) = await shop.context.read(audit_log.rows)
    assert (row["action"], row["detail"], row["reason"]) == ("dead.discard", "2", "the CRM is gone")
    assert await shop.sql(select(ATTEMPT.c.detail)) == "by api: the CRM is gone"
    assert await perform(shop.context, "dead.discard", {"note": "x", "source": "acme"}) == {"discarded": 0}


async def test_dead_letters_are_not_taken_for_held_ones(shop: Any) -> None:
    assert await perform(shop.context, "held.discard", {"note": "x"}) == {"discarded": 0}
    assert await perform(shop.context, "held.release", {}) == {"released": 0}
    await shop.context.runtime.write(lambda c: c.execute(update(DELIVERY).values(state="held")).rowcount)
    assert await perform(shop.context, "dead.discard", {"note": "x"}) == {"discarded": 0}
    assert await perform(shop.context, "held.discard", {"note": "x"}) == {"discarded": 4}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"source": "nobody"}, "source 'nobody' is not in the ledger"),
        ({"destination": "nowhere"}, "destination 'nowhere' is not known"),
        ({"keys": ["evt_9"]}, "1 keys are not in the ledger"),
        ({"types": ["a,b"]}, "types"),
        ({"since": "yesterday"}, "since"),
    ],
)
async def test_a_filter_that_names_nothing_known_is_refused(shop: Any, args: dict[str, Any], message: str) -> None:
    with pytest.raises(OperationRefused, match=message):
        await perform(shop.context, "dead.requeue", args)
    assert await dead(shop) == ["0", "1", "2", "3"]


async def test_a_limited_operator_reaches_the_dead_letters_of_its_sources(shop: Any) -> None:
    ann = shop.context.acting_as(Principal(name="ann", role=AccessRole.OPERATOR, sources=frozenset(("acme",))))
    for args in ({}, {"source": "other"}, {"keys": ["evt_2"]}):
        with pytest.raises(OperationForbidden):
            await perform(ann, "dead.requeue", args)
    with pytest.raises(OperationRefused, match="not in the ledger"):
        await perform(ann, "dead.requeue", {"source": "acme", "keys": ["evt_2"]})
    assert await perform(ann, "dead.discard", {"source": "acme", "note": "x"}) == {"discarded": 2}
    assert await dead(shop) == ["2", "3"]
