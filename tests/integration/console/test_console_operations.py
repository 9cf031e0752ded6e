"""Every operation, on the real ledger of each kind of database."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select, update
from stripe import WebhookSignature

from gapless.domain import Mode, Via, to_us
from gapless.ledger import passes
from gapless.ledger.tables import DELIVERY, EVENT, PASS, QUARANTINE, SLICE, SOURCE, TALLY
from gapless.operations.context import ApprovalNeeded, OperationContext, OperationRefused
from gapless.operations.passes import DemandPass
from gapless.operations.registry import OPERATIONS, perform
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.providers.telegram import Telegram, TelegramOptions

pytestmark = pytest.mark.anyio
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def do(context: OperationContext, name: str, args: Mapping[str, object]) -> dict[str, Any]:
    return await perform(context, name, args)


def at(time: datetime) -> str:
    return time.isoformat()


async def deliveries(console: Any) -> dict[str, str]:
    query = select(EVENT.c.key, DELIVERY.c.state).join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
    found: dict[str, str] = await console.context.read(lambda c: {row.key: row.state for row in c.execute(query)})
    return found


async def settle(console: Any, state: str, reason: str) -> None:
    done = update(DELIVERY).values(state=state, reason=reason, attempts=15)
    await console.context.runtime.write(lambda c: c.execute(done).rowcount)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "source.burn",
            {},
            r"operation 'source.burn' does not exist; there are config.activate, db.restored, dead.discard, ",
        ),
        ("source.rename", {"old": "acme"}, r"source.rename: .*`new`.*it takes old, new"),
        ("source.rename", {"old": "acme", "new": "Not Allowed"}, r"`\$\.new`"),
        ("source.rename", {"old": "nobody", "new": "somebody"}, r"source 'nobody' is not in the ledger"),
        ("source.pass", {"source": "acme", "since": "2026-11-01T00:00:00"}, r"timezone"),
        ("source.pass", {"source": "nobody"}, r"source 'nobody' is not configured; configured: acme"),
        ("source.pass", {"source": "acme", "sinse": "x"}, r"sinse"),
        ("import", {"source": "acme", "events": [{"key": "evt_1"}, {"key": "x" * 600}]}, r"events\[1\]: key has 600"),
        ("import", {"source": "acme", "events": [{"key": "evt\0"}]}, r"NUL"),
        ("event.replay", {"destination": "shop"}, r"destination 'shop' is not known"),
        ("quarantine.release", {}, r"either id or source"),
    ],
)
async def test_a_refused_operation_changes_nothing(
    console: Any, name: str, args: dict[str, object], message: str
) -> None:
    with pytest.raises(OperationRefused, match=message):
        await do(console.context, name, args)
    assert await console.audited() == []
    assert await console.sql(select(EVENT.c.seq)) is None


async def test_a_rename_keeps_the_row_and_says_what_is_next(console: Any) -> None:
    before = console.source().id
    done = await do(console.context, "source.rename", {"old": "acme", "new": "acme-live"})
    assert await console.sql(select(SOURCE.c.id).where(SOURCE.c.name == "acme-live")) == before
    assert "restart" in str(done["next"])
    assert await console.audited() == [("source.rename", "acme")]


async def test_a_rename_never_takes_a_name_that_is_in_use(console: Any) -> None:
    await console.add_source("other")
    with pytest.raises(OperationRefused, match="'other' exists already"):
        await do(console.context, "source.rename", {"old": "acme", "new": "other"})


async def test_a_pass_on_demand_is_sliced_and_makes_the_source_due(
    console: Any,
) -> None:
    now = console.now[0]
    await console.context.runtime.write(
        lambda c: c.execute(update(SOURCE).values(next_pass_us=to_us(now + DAY))).rowcount
    )
    done = await do(console.context, "source.pass", {"source": "acme", "since": at(now - 60 * DAY)})
    capabilities = console.source().provider.capabilities
    (made,) = done["passes"]
    assert made["start"] >= now - capabilities.history
    assert made["end"] == now
    rows = await console.context.read(lambda c: passes.slices(c, made["id"]))
    assert (rows[0].start_us, rows[-1].end_us) == (to_us(made["start"]), to_us(made["end"]))
    assert len(rows) == 64
    assert all(left.end_us == right.start_us for left, right in pairwise(rows))
    assert await console.sql(select(PASS.c.kind)) == "demand"
    assert await console.sql(select(SOURCE.c.next_pass_us)) == to_us(now)
    assert await console.audited() == [("source.pass", "acme")]


async def test_a_list_that_is_read_from_the_top_is_not_cut_into_slices(console: Any) -> None:
    log = GitHub(GitHubOptions(token=Secret("x"), webhook_secret=(Secret("s"),), repository="acme/shop", hook_id=7))
    console.context.sources.change("acme", provider=log)
    done = await do(console.context, "source.pass", {"source": "acme", "since": at(console.now[0] - 3 * DAY)})
    (made,) = done["passes"]
    assert len(await console.context.read(lambda c: passes.slices(c, made["id"]))) == 1


async def test_a_source_that_consumes_events_has_no_pass_on_demand(console: Any) -> None:
    console.context.sources.change("acme", provider=Telegram(TelegramOptions(token=Secret("1:x"))))
    with pytest.raises(OperationRefused, match="is consumed by reading"):
        await do(console.context, "source.pass", {"source": "acme"})
    assert await console.sql(select(PASS.c.id)) is None


async def test_a_pass_without_a_time_begins_at_the_watermark(console: Any) -> None:
    await console.listed(ago=2 * HOUR)
    done = await do(console.context, "source.pass", {"source": "acme"})
    assert [made["start"] for made in done["passes"]] == [console.now[0] - 2 * HOUR]


async def test_a_pass_over_a_time_that_the_list_forgot_is_refused(console: Any) -> None:
    now = console.now[0]
    args = {"source": "acme", "since": at(now - 90 * DAY), "until": at(now - 80 * DAY)}
    with pytest.raises(OperationRefused, match="nothing to read; the list shows"):
        await do(console.context, "source.pass", args)
    assert await console.sql(select(PASS.c.id)) is None


async def test_a_source_without_a_list_is_not_read_on_demand(console: Any) -> None:
    await console.add_source("push", Mode.WEBHOOK)
    with pytest.raises(OperationRefused, match="no list to read"):
        await do(console.context, "source.pass", {"source": "push"})


async def test_the_status_of_a_pass_follows_its_slices_to_the_end(console: Any) -> None:
    args = {"source": "acme", "since": at(console.now[0] - 3 * HOUR)}
    done = await do(console.context, "source.pass", args)
    (pass_id,) = [made["id"] for made in done["passes"]]

    async def shown() -> tuple[object, ...]:
        status = await do(console.context, "pass.status", {"ids": [pass_id, 999]})
        (row,) = status["passes"]
        return status["remaining"], row["state"], row["slices"], row["slices_done"], row["outcome"]

    assert await shown() == (1, "running", 3, 0, None)
    first = await console.sql(select(SLICE.c.id).order_by(SLICE.c.start_us))
    await console.context.runtime.write(lambda c: passes.finish_slice(c, first, 0, 0))
    assert await shown() == (1, "running", 3, 1, None)
    await console.context.runtime.write(lambda c: passes.finish(c, pass_id, "clean", to_us(console.now[0])))
    assert await shown() == (0, "finished", 3, 1, "clean")


async def test_imported_events_are_recorded_once_and_never_missed(console: Any) -> None:
    occurred = at(console.now[0] - HOUR)
    events = [{"key": f"evt_{n}", "type": "invoice.paid", "occurred_at": occurred} for n in range(1200)]
    assert await do(console.context, "import", {"source": "acme", "events": events}) == {"new": 1200, "known": 0}
    assert await do(console.context, "import", {"source": "acme", "events": events}) == {"new": 0, "known": 1200}
    assert await console.sql(select(EVENT.c.via)) == "import"
    assert await console.sql(select(TALLY.c.missed_unexplained)) == 0
    assert await console.audited() == [("import", "acme")] * 3  # a row per transaction that did something


async def test_an_imported_id_without_a_time_is_never_expected(console: Any) -> None:
    assert await do(console.context, "import", {"source": "acme", "events": [{"key": "evt_1"}]}) == {
        "new": 1,
        "known": 0,
    }
    assert await console.sql(select(EVENT.c.expected)) is False
    await console.record(Via.LIST, "evt_1")
    assert await console.sql(select(EVENT.c.missed_cause)) is None


async def test_replay_sends_by_key_and_tells_what_has_no_payload(console: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1", "evt_2")
    await console.record(Via.IMPORT, "evt_3")
    await console.add_destination("shop")
    args = {"destination": "shop", "keys": ["evt_1", "evt_3"]}
    assert await do(console.context, "event.replay", args) == {"replayed": 1, "without_payload": 1}
    assert await deliveries(console) == {"evt_1": "pending"}
    assert console.woken == [True]


async def test_replay_of_unknown_keys_sends_nothing_at_all(console: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1")
    await console.add_destination("shop")
    with pytest.raises(OperationRefused, match="1 keys are not in the ledger: 'evt_x'; nothing was sent"):
        await do(console.context, "event.replay", {"destination": "shop", "keys": ["evt_1", "evt_x"]})
    assert await deliveries(console) == {}


async def test_replay_of_an_interval_takes_only_its_source(console: Any) -> None:
    await console.add_source("other")
    await console.record(Via.WEBHOOK, "early", ago=3 * HOUR)
    await console.record(Via.WEBHOOK, "late", ago=HOUR)
    await console.record(Via.WEBHOOK, "strange", ago=2 * HOUR, source="other")
    await console.record(Via.WEBHOOK, "meant", ago=2 * HOUR)
    await console.add_destination("shop")
    now = console.now[0]
    args = {"destination": "shop", "source": "acme", "since": at(now - 2 * HOUR), "until": at(now - HOUR)}
    meant = now - 2 * HOUR
    assert await do(console.context, "event.replay", {**args, "dry_run": True}) == {
        "count": 1, "first": meant, "last": meant,
    }  # fmt: skip
    assert await deliveries(console) == {}
    assert await do(console.context, "event.replay", args) == {"replayed": 1, "without_payload": 0}
    assert await deliveries(console) == {"meant": "pending"}


async def test_dead_letters_are_requeued_with_new_attempts(console: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1", "evt_2")
    await settle(console, "dead", "consumer_5xx")
    assert await do(console.context, "dead.requeue", {"reason": "timeout"}) == {"requeued": 0}
    assert await do(console.context, "dead.requeue", {"destination": "shop", "keys": ["evt_2"]}) == {"requeued": 1}
    assert await deliveries(console) == {"evt_1": "dead", "evt_2": "pending"}
    assert await do(console.context, "dead.requeue", {"reason": "consumer_5xx"}) == {"requeued": 1}
    assert await console.sql(select(DELIVERY.c.attempts)) == 0
    assert await console.audited() == [("dead.requeue", "shop"), ("dead.requeue", "*")]


async def test_a_second_person_approves_what_gives_up_many(console: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1", "evt_2", "evt_3")
    await settle(console, "dead", "consumer_5xx")
    careful = replace(console.context, second_person_above=2)
    with pytest.raises(ApprovalNeeded, match="concerns 3 events"):
        await do(careful, "dead.discard", {"destination": "shop", "note": "old"})
    assert set((await deliveries(console)).values()) == {"dead"}


async def test_held_deliveries_are_released(console: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1")
    await settle(console, "held", "version_mismatch")
    assert await do(console.context, "held.release", {"destination": "shop"}) == {"released": 1}
    assert await deliveries(console) == {"evt_1": "pending"}


async def test_release_reads_a_source_again_and_names_what_stays(console: Any) -> None:
    body = json.dumps({
        "id": "evt_1", "object": "event", "type": "invoice.paid", "created": int(console.now[0].timestamp()) - 2,
        "livemode": False, "data": {"object": {"id": "in_1", "object": "invoice"}},
    })  # fmt: skip
    for secret in ("whsec_1", "whsec_other", "whsec_1"):
        sent = int(console.now[0].timestamp())
        header = WebhookSignature.generate_signature_header(body, secret, sent)
        await console.rows(
            QUARANTINE,
            source_id=console.source().id,
            received_us=to_us(console.now[0]),
            reason="signature",
            detail="",
            headers=json.dumps([["stripe-signature", header]]),
            body=body.encode(),
        )
    done = await do(console.context, "quarantine.release", {"source": "acme"})
    assert (done["released"], done["new"], done["refused"]) == (2, 1, 1)
    (refused,) = done["first_refused"]
    assert (refused["id"], refused["reason"]) == (2, "signature")
    assert await console.sql(select(EVENT.c.key)) == "evt_1"
    assert await console.audited() == [("quarantine.release", "acme")]


async def test_a_pass_on_demand_can_be_cancelled_once(console: Any) -> None:
    await console.listed(ago=2 * HOUR)
    done = await do(console.context, "source.pass", {"source": "acme"})
    (number,) = (made["id"] for made in done["passes"])
    assert await do(console.context, "pass.cancel", {"ids": [number]}) == {"cancelled": [number]}
    (row,) = (await do(console.context, "pass.status", {"ids": [number]}))["passes"]
    assert (row["state"], row["outcome"]) == ("finished", "cancelled")
    with pytest.raises(OperationRefused, match=rf"pass {number} has ended already \(cancelled\)"):
        await do(console.context, "pass.cancel", {"ids": [number]})
    assert await console.audited() == [("source.pass", "acme"), ("pass.cancel", str(number))]


async def test_no_other_pass_can_be_cancelled(console: Any) -> None:
    row = {"source_id": console.source().id, "stream_id": await console.stream_id(), "start_us": 0, "end_us": 1}
    await console.rows(PASS, **row, kind="scheduled", started_us=0)
    with pytest.raises(OperationRefused, match="pass 1 is scheduled: it would be made again"):
        await do(console.context, "pass.cancel", {"ids": [1]})
    with pytest.raises(OperationRefused, match="there is no pass 7; `gapless pass list` shows"):
        await do(console.context, "pass.cancel", {"ids": [7]})
    assert await console.audited() == []


async def test_a_webhook_that_is_not_in_quarantine_is_refused(console: Any) -> None:
    done = await do(console.context, "quarantine.release", {"id": 7})
    assert (done["released"], done["first_refused"][0]["reason"]) == (0, "absent")
    assert await console.audited() == []


def test_every_operation_documents_what_it_takes() -> None:
    assert sorted(OPERATIONS) == [
        "config.activate", "db.restored", "dead.discard", "dead.requeue", "destination.fill", "destination.pause",
        "destination.resume", "endpoint.note", "event.accept_unlisted", "event.erase", "event.replay", "held.discard",
        "held.release", "import", "job.cancel", "keys.rotate", "missing.dismiss", "operation.approve", "pass.cancel",
        "pass.status",
        "quarantine.release", "receipts", "source.accept_account", "source.acknowledge", "source.handshake",
        "source.handshake_take", "source.identity",
        "source.pass", "source.rename", "token.create", "token.revoke",
    ]  # fmt: skip
    assert DemandPass.__doc__
