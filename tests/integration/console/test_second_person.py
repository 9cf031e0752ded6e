"""Many events are replayed, requeued or dismissed only when a second person has approved it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import delete, func, select, update

from gapless.bootstrap.destinations import make_destination
from gapless.console.auth import Access
from gapless.destinations.contract import Sender
from gapless.domain import Via
from gapless.ledger import audit_log, destinations
from gapless.ledger.tables import APPROVAL, DELIVERY
from gapless.operations.context import ApprovalNeeded, OperationForbidden, OperationRefused
from gapless.operations.principals import AccessRole, Principal
from gapless.operations.registry import perform
from gapless.settings import DestinationSettings
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("a-long-token-0123"))
KEYS = [f"evt_{n}" for n in range(4)]


@pytest.fixture
async def shop(console: Any) -> Any:
    """Four dead letters of the destination `shop`; more than two need a second person; `ann` and `bob` operate."""
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, *KEYS)
    await console.context.runtime.write(lambda c: c.execute(update(DELIVERY).values(state="dead", reason="gone")))
    console.tokens = {}
    for name in ("ann", "bob"):
        made = await perform(console.context, "token.create", {"name": name, "role": "operator", "expires": None})
        console.tokens[name] = made["token"]
    console.context = replace(console.context, second_person_above=2)
    return console


async def dead(console: Any) -> int:
    count: int = await console.sql(select(func.count()).where(DELIVERY.c.state == "dead"))
    return count


def acting(console: Any, name: str, **limits: Any) -> Any:
    return console.context.acting_as(Principal(name=name, role=AccessRole.OPERATOR, **limits))


async def test_a_second_operator_lets_it_be_done_in_the_name_of_the_first(shop: Any, listen: Any) -> None:
    headers = {name: {"authorization": f"Bearer {token}"} for name, token in shop.tokens.items()}
    async with listen(access=WIDE) as client:
        asked = await client.post("/api/operations/dead.requeue", json={"note": "mended"}, headers=headers["ann"])
        assert (asked.status_code, await dead(shop)) == (409, 4)
        assert "dead.requeue concerns 4 events, more than 2" in asked.json()["error"]
        assert asked.json()["error"].endswith("gapless approve 1")
        own = await client.post("/api/operations/operation.approve", json={"id": 1}, headers=headers["ann"])
        assert (own.status_code, "another person" in own.json()["error"]) == (403, True)
        done = await client.post("/api/operations/operation.approve", json={"id": 1}, headers=headers["bob"])
        assert (done.status_code, done.json()["result"], await dead(shop)) == (200, {"requeued": 4}, 0)
        again = await client.post("/api/operations/operation.approve", json={"id": 1}, headers=headers["bob"])
        assert (again.status_code, "was approved before" in again.json()["error"]) == (400, True)
    rows = (await shop.context.read(audit_log.rows))[2:]
    assert [(row["actor"], row["action"], row["reason"]) for row in rows if row["subject"] != "listener"] == [
        ("ann", "approval.ask", None),
        ("bob", "operation.approve", None),
        ("ann", "dead.requeue", "mended; approved by bob"),
    ]


async def test_a_fill_of_many_needs_a_second_person(shop: Any) -> None:
    await shop.context.runtime.write(lambda c: c.execute(delete(DELIVERY)).rowcount)
    row = await shop.context.read(destinations.destination, name="shop")
    app = make_destination(DestinationSettings(name="shop"), row.id, 0, cast("Sender", None))
    shop.context = replace(shop.context, destinations=[app])
    args = {"destination": "shop"}
    assert (await perform(acting(shop, "ann"), "destination.fill", {**args, "dry_run": True}))["owed"] == 4
    with pytest.raises(ApprovalNeeded, match=r"destination\.fill concerns 4 events, more than 2"):
        await perform(acting(shop, "ann"), "destination.fill", args)
    done = await perform(acting(shop, "bob"), "operation.approve", {"id": 1})
    assert (done["result"]["owed"], done["result"]["after"]) == (4, None)


async def test_a_command_approves_with_the_token_of_a_person(shop: Any) -> None:
    with pytest.raises(ApprovalNeeded):
        await perform(shop.context, "event.replay", {"destination": "shop", "keys": KEYS})
    for token in (None, "wrong"):
        with pytest.raises(OperationForbidden, match="a named operator token must approve it"):
            await perform(shop.context, "operation.approve", {"id": 1, "token": token})
    done = await perform(shop.context, "operation.approve", {"id": 1, "token": shop.tokens["bob"]})
    assert done["result"] == {"replayed": 4, "without_payload": 0}
    assert shop.tokens["bob"] not in str(await shop.context.read(audit_log.rows))


@pytest.mark.parametrize(
    ("name", "args", "needed"),
    [
        ("event.replay", {"destination": "shop", "since": "2026-11-01T00:00:00Z"}, True),
        ("event.replay", {"destination": "shop", "since": "2026-11-01T00:00:00Z", "dry_run": True}, False),
        ("event.replay", {"destination": "shop", "keys": KEYS[:2]}, False),
        ("dead.requeue", {"destination": "shop"}, True),
        ("dead.requeue", {"destination": "shop", "keys": KEYS[:1]}, False),
        ("dead.requeue", {"destination": "shop", "reason": "another"}, False),
        ("held.release", {}, False),
        ("missing.dismiss", {"source": "acme", "keys": KEYS, "reason": "seen"}, True),
    ],
)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_only_what_concerns_many_events_waits(shop: Any, name: str, args: dict[str, Any], needed: bool) -> None:
    if needed:
        with pytest.raises(ApprovalNeeded):
            await perform(shop.context, name, args)
    else:
        await perform(shop.context, name, args)
    assert bool(await shop.sql(select(APPROVAL.c.id))) is needed


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_what_was_asked_for_long_ago_is_not_done(shop: Any) -> None:
    with pytest.raises(ApprovalNeeded):
        await perform(acting(shop, "ann"), "dead.requeue", {})
    shop.now[0] += timedelta(days=1, seconds=1)
    with pytest.raises(OperationRefused, match="no operation 1 waits for approval"):
        await perform(acting(shop, "bob"), "operation.approve", {"id": 1})
    assert await dead(shop) == 4


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_an_approval_gives_no_rights_that_the_first_person_lacks(shop: Any) -> None:
    """A viewer cannot ask, and who is limited to other sources cannot approve."""
    viewer = shop.context.acting_as(Principal(name="see", role=AccessRole.VIEWER))
    with pytest.raises(OperationForbidden):
        await perform(viewer, "dead.requeue", {})
    with pytest.raises(ApprovalNeeded):
        await perform(acting(shop, "ann"), "dead.requeue", {})
    args = {"name": "carl", "role": "operator", "sources": ["acme"], "expires": None}
    await perform(shop.context, "token.create", args)
    with pytest.raises(OperationForbidden, match="limited to other sources"):
        await perform(acting(shop, "carl"), "operation.approve", {"id": 1})
