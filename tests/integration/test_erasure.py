"""What a person has erased is gone from every place of the ledger, and never comes back; that it was there stays."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from keys import FIRST, open_sealed
from sqlalchemy import Connection, func, insert, select, update
from world import T0, FakeClock, World, make_stripe, new_fake

from gapless.deliver.worker import without_payload
from gapless.destinations.contract import Answer, Failed, FailureReason
from gapless.domain import Via, to_us
from gapless.ledger import audit_log, dead_letters, deliveries, destinations, events, missing, quarantine, retention
from gapless.ledger.audit_log import AuditKey
from gapless.ledger.deliveries import Attempt, DeliveryClaim, DeliveryState, Settlement
from gapless.ledger.engine import Store
from gapless.ledger.quarantine import Caps, QuarantinedWebhook
from gapless.ledger.recorder import Sighting
from gapless.ledger.tables import APPROVAL, ATTEMPT, DELIVERY, EVENT, MISSING, PAYLOAD, QUARANTINE, TALLY
from gapless.ledger.unreadable import OddRow, set_aside
from gapless.operations.context import ApprovalNeeded, OperationContext, OperationForbidden, OperationRefused
from gapless.operations.principals import AccessRole, Principal
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.runtime import Runtime
from gapless.status.troubles import TroubleKind, troubles
from gapless_reconcilers.kit.contract import RemoteEvent, Secret

pytestmark = pytest.mark.anyio
PERSON = "cus_canary"
POINTER = "/data/object/customer"
ANY_STORE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
KEYED = AuditKey(Secret("a-key-of-enough-characters-1"))
BY_VALUE = {"pointer": POINTER, "value": PERSON, "reason": "request 12"}


def payload(key: str, customer: str = PERSON) -> bytes:
    return json.dumps({"id": key, "data": {"object": {"id": "in_1", "customer": customer}}}).encode()


@dataclass(kw_only=True)
class Ledger:
    """A ledger with events of two people, in every place where something of them is kept."""

    world: World
    context: OperationContext
    runtime: Runtime

    async def record(self, *seen: tuple[str, str], via: Via = Via.WEBHOOK, whole: bytes | None = None) -> None:
        """Record events (key, customer)."""
        source = self.world.source()
        sightings = [
            Sighting(
                source=source, stream_id=self.world.stream_id, via=via, seen_us=to_us(T0), item=item,
                body=(whole or payload(*one)) if via is Via.WEBHOOK else None,
                headers="{}" if via is Via.WEBHOOK else None,
                event=RemoteEvent(
                    key=one[0], type="invoice.paid", object_key=f"in_{one[1]}", occurred_at=T0, payload=payload(*one)
                ),
            )
            for item, one in enumerate(seen)
        ]  # fmt: skip
        recorder = self.runtime.writer.recorder
        await self.runtime.write(recorder.record_webhooks, webhooks=[tuple(sightings)])

    async def erase(self, **args: Any) -> dict[str, Any]:
        return await perform(self.context, "event.erase", args)

    async def sql(self, query: Any) -> Any:
        return await self.runtime.read(lambda connection: connection.execute(query).scalar())

    async def rows(self, query: Any) -> list[tuple[Any, ...]]:
        return await self.runtime.read(lambda connection: [tuple(row) for row in connection.execute(query)])


@pytest.fixture(params=[(), (FIRST,)], ids=["clear", "sealed"])
async def store(store_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    store = await open_sealed(store_url, *request.param)
    yield store
    await store.close()


@pytest.fixture
async def ledger(store: Store) -> AsyncIterator[Ledger]:
    clock = FakeClock()
    fake = new_fake(clock)
    world = World(store=store, clock=clock, fake=fake, client=None, make=make_stripe)  # type: ignore[arg-type]
    await world.open()
    async with world.daemon() as daemon:
        runtime = replace(daemon.runtime, audit_key=KEYED)
        evidence = EvidenceFetcher(None, clock, runtime.metrics)  # type: ignore[arg-type]
        context = OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer))
        made = Ledger(world=world, context=context, runtime=runtime)
        await made.record(("evt_1", PERSON), ("evt_2", "cus_2"), whole=b'{"both": "canary"}')
        await made.record(("evt_3", PERSON))
        await store.write(fill)
        yield made


def fill(connection: Connection) -> None:
    """Owe the events, note what attempts said, refuse a webhook of each person, and set a row of each aside."""
    app = destinations.register_destination(connection, "app", T0)
    states = {1: "pending", 2: "pending", 3: "dead"}
    rows = [
        {"destination_id": app, "event_seq": seq, "state": state, "next_us": 0, "created_us": 0}
        for seq, state in states.items()
    ]
    connection.execute(insert(DELIVERY), rows)
    attempt = {"destination_id": app, "at_us": 1, "duration_us": 1, "outcome": "consumer_4xx"}
    connection.execute(insert(ATTEMPT), [{**attempt, "event_seq": seq, "detail": f"no {PERSON}"} for seq in (1, 2)])
    refused = [
        QuarantinedWebhook(
            source_id=1, received_us=to_us(T0) + at, reason="signature", detail="bad", headers="[]", body=body,
            claims=claims,
        )
        for at, (body, claims) in enumerate(
            [(payload("evt_3"), '["evt_3"]'), (payload("evt_9", "cus_2"), '["evt_9"]'), (b"no json", "[]")]
        )
    ]  # fmt: skip
    quarantine.add(connection, refused, Caps(rows=100, size_bytes=1 << 20))
    odd = [
        OddRow(source_id=1, stream_id=1, key=f"unreadable:{n}", row=row, problem="x", occurred_us=1, until_us=2)
        for n, row in enumerate((payload("evt_x"), payload("evt_y", "cus_2")))
    ]
    set_aside(connection, odd, 5)


def everything(connection: Connection) -> str:
    """Return all that the ledger has, opened."""
    found: list[object] = [events.payload(connection, seq) for (seq,) in connection.execute(select(EVENT.c.seq))]
    found += [quarantine.content(connection, each.id) for each in quarantine.entries(connection)]
    found += missing.entries(connection)
    for table in (EVENT, ATTEMPT, DELIVERY, QUARANTINE, MISSING):
        found += connection.execute(select(table)).all()
    return str(found)


async def test_a_value_is_erased_everywhere_and_the_rest_stays(ledger: Ledger) -> None:
    counted = await ledger.erase(**BY_VALUE, dry_run=True)
    assert counted == {"events": 2, "refused": 1, "rows": 1, "unknown": 0, "before": 0, "unopened": 1}
    assert "canary" in await ledger.runtime.read(everything)
    done = await ledger.erase(**BY_VALUE)
    assert {name: done[name] for name in ("payloads", "attempts", "deliveries")} == {
        "payloads": 3, "attempts": 1, "deliveries": 2,
    }  # fmt: skip
    left = await ledger.runtime.read(everything)
    assert PERSON not in left.replace(f"in_{PERSON}", "").replace(f"no {PERSON}", "")
    assert (await ledger.runtime.read(events.payload, seq=2) or (b"",))[0] == payload("evt_2", "cus_2")
    assert left.count("cus_2") >= 3
    assert await ledger.rows(select(EVENT.c.key, EVENT.c.erased_us.is_not(None)).order_by(EVENT.c.seq)) == [
        ("evt_1", True), ("evt_2", False), ("evt_3", True),
    ]  # fmt: skip
    assert await ledger.sql(select(func.sum(TALLY.c.by_webhook))) == 3
    assert await ledger.rows(select(DELIVERY.c.state, DELIVERY.c.reason).order_by(DELIVERY.c.event_seq)) == [
        ("dead", "erased"), ("pending", None), ("dead", "erased"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"keys": ["evt_3", "evt_2"]}, (2, 1, 0, 0)),
        ({"keys": ["evt_3", "evt_unknown"]}, (1, 1, 0, 1)),
        ({"keys": ["evt_9"]}, (0, 1, 0, 1)),
        ({"object": f"in_{PERSON}"}, (2, 0, 0, 0)),
        ({"object": f"in_{PERSON}", "source": "acme"}, (2, 0, 0, 0)),
        ({"pointer": POINTER, "value": "cus_2"}, (1, 1, 1, 0)),
        ({"pointer": POINTER, "value": "cus"}, (0, 0, 0, 0)),
        ({"pointer": "/data/object/id", "value": "in_1"}, (3, 2, 2, 0)),
        ({"pointer": "/data/*/customer", "value": "cus_2"}, (1, 1, 1, 0)),
    ],
)
@ANY_STORE
async def test_what_is_erased_is_counted_first(ledger: Ledger, args: Any, found: tuple[int, ...]) -> None:
    counts = await ledger.erase(**args, dry_run=True)
    assert tuple(counts[name] for name in ("events", "refused", "rows", "unknown")) == found
    assert "canary" in await ledger.runtime.read(everything)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "one of the three"),
        ({"keys": ["a"], "object": "b", "reason": "r"}, "one of the three"),
        ({"pointer": "/a", "reason": "r"}, "one of the three"),
        ({"value": "a", "reason": "r"}, "one of the three"),
        ({"keys": ["evt_1"]}, "needs the reason"),
        ({"keys": ["evt_1"], "reason": " "}, "needs the reason"),
        ({"keys": ["evt_1"], "reason": "r", "source": "nobody"}, "is not in the ledger"),
        ({"pointer": "a", "value": "b", "reason": "r"}, "pointer"),
        ({"approved": {"criterion": "keys", "events": [1]}, "reason": "r"}, "only from a request that was approved"),
    ],
)
@ANY_STORE
async def test_an_erasure_that_is_not_clear_is_refused(ledger: Ledger, args: Any, said: str) -> None:
    with pytest.raises(OperationRefused, match=said):
        await ledger.erase(**args)
    assert await ledger.sql(select(func.count()).where(EVENT.c.erased_us.is_not(None))) == 0


async def test_an_erased_event_gets_no_payload_again(ledger: Ledger) -> None:
    """By a late webhook, or a list."""
    await ledger.erase(keys=["evt_3"], reason="r")
    for via in (Via.WEBHOOK, Via.LIST):
        await ledger.record(("evt_3", PERSON), via=via)
    assert await ledger.runtime.read(events.payload, seq=3) is None
    assert await ledger.sql(select(func.count()).select_from(PAYLOAD)) == 3
    assert await ledger.sql(select(EVENT.c.webhook_count).where(EVENT.c.seq == 3)) == 2


@ANY_STORE
async def test_a_refused_webhook_of_an_erased_event_is_not_kept(ledger: Ledger) -> None:
    def refuse(connection: Connection) -> None:
        late = QuarantinedWebhook(
            source_id=1, received_us=7, reason="signature", detail="", headers='["canary"]', body=payload("evt_3"),
            claims='["evt_3"]',
        )  # fmt: skip
        quarantine.add(connection, [late], Caps(rows=100, size_bytes=1 << 20))

    await ledger.erase(keys=["evt_3"], reason="r")
    await ledger.runtime.write(refuse)
    newest = (await ledger.runtime.read(quarantine.entries))[-1]
    assert (newest.claims, newest.purged_us, newest.size) == (("evt_3",), 7, 2)


@ANY_STORE
async def test_an_erased_row_of_a_list_is_not_kept_again(ledger: Ledger) -> None:
    def show_again(connection: Connection) -> None:
        row = OddRow(
            source_id=1, stream_id=1, key="unreadable:0", row=payload("evt_x"), problem="x", occurred_us=1, until_us=2
        )
        set_aside(connection, [row], 9)

    await ledger.erase(**BY_VALUE)
    await ledger.runtime.write(show_again)
    assert await ledger.sql(select(MISSING.c.row).where(MISSING.c.key == "unreadable:0")) is None


@ANY_STORE
async def test_erasing_again_does_nothing(ledger: Ledger) -> None:
    await ledger.erase(**BY_VALUE)
    rows = len(await ledger.runtime.read(audit_log.rows))
    again = await ledger.erase(**BY_VALUE)
    assert (again["events"], again["refused"], again["rows"], again["payloads"]) == (0, 0, 0, 0)
    known = await ledger.erase(keys=["evt_3"], reason="r")
    assert (known["events"], known["before"]) == (0, 1)
    assert len(await ledger.runtime.read(audit_log.rows)) == rows


@ANY_STORE
async def test_the_audit_log_has_a_keyed_digest_and_no_value(ledger: Ledger) -> None:
    await ledger.erase(**BY_VALUE)
    rows = await ledger.runtime.read(audit_log.rows)
    assert {(row["action"], row["subject"], row["reason"]) for row in rows} == {
        ("event.erase", f"pointer {POINTER} {KEYED.pseudonym_of(f'pointer {POINTER}', PERSON)}", "request 12")
    }
    assert PERSON not in str(rows)
    unkeyed = replace(ledger.context, runtime=replace(ledger.runtime, audit_key=AuditKey()))
    await perform(unkeyed, "event.erase", {"keys": ["evt_2"], "reason": "r"})
    assert (await ledger.runtime.read(audit_log.rows))[-1]["subject"] == "keys (no digest: the audit log has no key)"


@ANY_STORE
async def test_many_events_are_erased_by_two_people_and_the_value_is_kept_nowhere(ledger: Ledger) -> None:
    context = replace(ledger.context, second_person_above=1)
    for name in ("ann", "bob"):
        await perform(ledger.context, "token.create", {"name": name, "role": "operator", "expires": None})
    ann, bob = (context.acting_as(Principal(name=name, role=AccessRole.OPERATOR)) for name in ("ann", "bob"))
    await perform(ann, "event.erase", {**BY_VALUE, "dry_run": True})
    with pytest.raises(ApprovalNeeded, match=r"event\.erase concerns 4 events"):
        await perform(ann, "event.erase", BY_VALUE)
    assert PERSON not in str(await ledger.rows(select(APPROVAL)))
    with pytest.raises(OperationForbidden):
        await perform(ann, "operation.approve", {"id": 1})
    done = await perform(bob, "operation.approve", {"id": 1})
    assert done["result"]["payloads"] == 3  # type: ignore[index]
    row = (await ledger.runtime.read(audit_log.rows))[-1]
    assert (row["actor"], row["action"], row["reason"]) == ("ann", "event.erase", "request 12; approved by bob")
    assert PERSON not in str(await ledger.runtime.read(audit_log.rows))
    limited = context.acting_as(Principal(name="carl", role=AccessRole.OPERATOR, sources=frozenset({"acme"})))
    with pytest.raises(OperationForbidden):
        await perform(limited, "event.erase", {"keys": ["evt_2"], "reason": "r"})


async def test_an_erased_delivery_is_not_sent_again_and_is_no_trouble(ledger: Ledger) -> None:
    await ledger.erase(**BY_VALUE)
    kinds = {each.kind for each in troubles(await ledger.world.whole_report())}
    assert TroubleKind.DEAD_LETTERS not in kinds
    assert await ledger.runtime.write(dead_letters.requeue, now_us=9) == 0
    assert await perform(ledger.context, "dead.requeue", {}) == {"requeued": 0}
    assert await ledger.runtime.write(dead_letters.replay, destination_id=1, seqs=[1, 2, 3], now_us=9) == 1
    claim = DeliveryClaim(destination_id=1, seq=1, attempts=0, lease_us=9)
    ((_, event),) = await ledger.runtime.read(deliveries.load, claims=[claim])
    result = without_payload(event)
    assert isinstance(result, Failed)
    assert (result.reason, result.permanent) == (FailureReason.ERASED, True)
    pruned = await ledger.runtime.write(retention.prune_deliveries, destination_id=1, before_us=to_us(T0) + 1)
    assert pruned.count == 2


async def test_an_attempt_that_was_under_way_leaves_no_text(ledger: Ledger) -> None:
    """Nor does it bring the delivery back."""
    (claim,) = await ledger.runtime.write(deliveries.claim, destination_id=1, now_us=9, limit=1, lease_us=9)
    await ledger.erase(keys=["evt_1"], reason="r")
    attempt = Attempt(at_us=1, duration_us=1, outcome="consumer_4xx", detail=f"no {PERSON}")
    settled = Settlement(claim=claim, state=DeliveryState.PENDING, at_us=2, attempt=attempt)
    await ledger.runtime.write(deliveries.settle, settlements=[settled])
    details = await ledger.rows(select(ATTEMPT.c.detail).where(ATTEMPT.c.event_seq == claim.seq))
    assert details == [(None,), (None,)]
    assert await ledger.sql(select(DELIVERY.c.reason).where(DELIVERY.c.event_seq == claim.seq)) == "erased"


async def test_an_answer_that_comes_after_the_erasure_is_not_kept(ledger: Ledger) -> None:
    """Although the event was delivered, so that there is no other text."""
    (claim,) = await ledger.runtime.write(deliveries.claim, destination_id=1, now_us=9, limit=1, lease_us=9)
    await ledger.erase(keys=["evt_1"], reason="r")
    answer = Answer(status=200, body=f"thanks, {PERSON}")
    attempt = Attempt(at_us=1, duration_us=1, outcome="delivered", answer=answer)
    settled = Settlement(claim=claim, state=DeliveryState.DELIVERED, at_us=2, attempt=attempt)
    await ledger.runtime.write(deliveries.settle, settlements=[settled])
    assert PERSON not in str(await ledger.rows(select(ATTEMPT).where(ATTEMPT.c.event_seq == claim.seq)))


@ANY_STORE
async def test_what_cannot_be_opened_is_said_and_left(ledger: Ledger) -> None:
    def damage(connection: Connection) -> None:
        connection.execute(update(PAYLOAD).where(PAYLOAD.c.id > 0).values(sealed_by="gone"))

    await ledger.runtime.write(damage)
    counted = await ledger.erase(**BY_VALUE, dry_run=True)
    assert (counted["events"], counted["unopened"]) == (0, 4)
    by_key = await ledger.erase(keys=["evt_3"], reason="r")
    assert by_key["payloads"] == 1
