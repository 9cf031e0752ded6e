"""A destination that is added later gets what the ledger has, once."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import plans
import pytest
from click.testing import CliRunner
from sqlalchemy import delete, select, update

from gapless.bootstrap.runtime import open_runtime
from gapless.cli.main import main
from gapless.condition import Condition
from gapless.deliver.routing import Destination
from gapless.domain import TypePatterns, Via, system_clock, to_us
from gapless.ledger import destinations, erasure, fills, streams
from gapless.ledger.recorder import Sighting
from gapless.ledger.tables import AUDIT_LOG, DELIVERY, EVENT, PAYLOAD
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.settings import load
from gapless_reconcilers.kit.contract import RemoteEvent

pytestmark = pytest.mark.anyio


async def added(setup: Any, sender: Any, **changes: Any) -> Destination:
    """A destination that is registered now: what was recorded before was never owed to it."""
    await setup.add_destination("later")
    row = await setup.store.read(destinations.destination, name="later")
    made: Destination = setup.destination(sender, id=row.id, name="later", since_us=row.since_us, **changes)
    return made


async def fill(setup: Any, *known: Destination, **args: object) -> dict[str, Any]:
    runtime = setup.runtime
    context = OperationContext(
        runtime=runtime,
        evidence=EvidenceFetcher(httpx.AsyncClient(), runtime.clock, runtime.metrics),
        stream_ids=StreamIds(runtime.writer),
        destinations=known,
        actor="ann",
    )
    since = system_clock() - timedelta(hours=12)
    return await perform(context, "destination.fill", {"destination": "later", "since": since, **args})


async def owed(setup: Any, destination: Destination) -> dict[str, tuple[str, str | None]]:
    query = select(EVENT.c.key, DELIVERY.c.state, DELIVERY.c.reason).join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
    query = query.where(DELIVERY.c.destination_id == destination.id)
    return {row.key: (row.state, row.reason) for row in await setup.store.read(lambda c: c.execute(query).all())}


async def test_it_gets_what_was_recorded_before_it_was_added(setup: Any, consumer: Any) -> None:
    await setup.record(
        setup.sighting("evt_1"),
        setup.sighting("evt_2", Via.LIST),
        setup.sighting("evt_other", type="charge.failed"),
        setup.sighting("evt_imported", Via.IMPORT),
        setup.sighting("evt_old", occurred_at=system_clock() - timedelta(hours=13)),
    )
    later = await added(setup, setup.http(consumer.url), types=TypePatterns(("invoice.*",)))
    plan = await fill(setup, later, dry_run=True)
    assert (plan["owed"], plan["held"], plan["after"]) == (2, 0, None)
    assert plan["first"] <= plan["last"]
    assert await owed(setup, later) == {}
    assert (await fill(setup, later))["owed"] == 2
    assert (await fill(setup, later))["owed"] == 0  # again, as after an interruption
    async with setup.delivering(later):
        await setup.wait_for(
            lambda rows: all(row.state == "delivered" for row in rows if row.destination_id == later.id)
        )
    assert sorted(got.headers["gapless-event-key"] for got in consumer.got) == ["evt_1", "evt_2"]
    logged = await setup.store.read(lambda c: c.execute(select(AUDIT_LOG.c.actor, AUDIT_LOG.c.action)).all())
    assert [tuple(row) for row in logged] == [("ann", "destination.fill")]


async def test_a_fill_holds_what_recording_would_have_held(setup: Any, consumer: Any) -> None:
    seqs = await setup.record(
        setup.sighting("evt_yes", body=b'{"n": 2}'),
        setup.sighting("evt_no", body=b'{"n": 0}'),
        setup.sighting("evt_odd", body=b"<xml/>"),
        setup.sighting("evt_theirs", Via.LIST, body=b'{"n": 2}'),
        setup.sighting("evt_again", body=b'{"n": 2}'),
    )

    def settle(connection: Any) -> int:
        held = update(DELIVERY).where(DELIVERY.c.event_seq == seqs["evt_theirs"])
        connection.execute(held.values(state="held", reason="other_account"))
        return connection.execute(update(EVENT).where(EVENT.c.key == "evt_again").values(repeated=True)).rowcount

    await setup.writer.submit(settle)
    later = await added(setup, setup.http(consumer.url), when=Condition("n > `1`"))
    done = await fill(setup, later)
    assert (done["owed"], done["held"]) == (4, 3)
    assert await owed(setup, later) == {
        "evt_yes": ("pending", None),
        "evt_odd": ("held", "condition"),
        "evt_theirs": ("held", "other_account"),
        "evt_again": ("held", "not_listed"),
    }


async def test_trap_a_fill_that_is_interrupted_and_repeated_owes_nothing_twice(setup: Any, consumer: Any) -> None:
    count = fills.SPAN + 200
    await setup.record(*(setup.sighting(f"evt_{number}") for number in range(count)))
    later = await added(setup, setup.http(consumer.url))
    newest = await setup.store.read(fills.newest_seq)
    first = await setup.store.read(fills.unowed, later.id, 0, to_us(system_clock()) + 1, newest - count)
    assert len(first) == fills.SPAN
    new = [fills.LaterDelivery(seq=each.seq, next_us=1) for each in first]
    assert await setup.writer.submit(lambda c: fills.owe(c, later.id, new[:300], 1)) == 300  # and then it was killed
    assert await setup.writer.submit(lambda c: fills.owe(c, later.id, new[:310], 1)) == 10
    rest = await fill(setup, later)
    assert rest["owed"] == count - 310
    assert len(await owed(setup, later)) == count


async def test_only_a_destination_of_the_configuration_is_filled(setup: Any, consumer: Any) -> None:
    later = await added(setup, setup.http(consumer.url))
    with pytest.raises(OperationRefused, match="'later' is not configured here"):
        await fill(setup)
    with pytest.raises(OperationRefused, match="'nobody' is not known"):
        await fill(setup, later, destination="nobody")


CONFIGURATION = """
[store]
url_env = "STORE_URL"
[[source]]
name = "acme"
provider = "stripe"
start = "2020-01-01"
options = { api_key_env = "KEY", webhook_secret_env = "SECRET" }
[[destination]]
name = "billing"
url = "https://billing.example/"
signature = "none"
"""
LATER = '\n[[destination]]\nname = "books"\nurl = "https://books.example/"\nsignature = "none"\nsince = "2021-01-01"\n'


@pytest.mark.usefixtures("store")
async def test_the_command_counts_first_and_begins_at_since(
    tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STORE_URL": store_url, "KEY": "rk_live_1", "SECRET": "whsec_1"}.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "gapless.toml"
    path.write_text(CONFIGURATION)
    async with open_runtime(load(path, os.environ), os.environ) as parts:
        source, writer, now = parts.runtime.sources["acme"], parts.runtime.writer, system_clock()
        stream_id = (await parts.runtime.read(streams.streams, source_id=source.id))[0].id
        event = RemoteEvent(key="evt_1", type="invoice.paid", occurred_at=now, payload=b"{}", livemode=True)
        early = replace_event(event, key="evt_early", occurred_at=now.replace(year=2020))
        sightings = [
            Sighting(source=source, stream_id=stream_id, event=each, via=Via.WEBHOOK, seen_us=to_us(now))
            for each in (event, early)
        ]
        await writer.submit(lambda c: len(writer.recorder.store(c, sightings)))
    path.write_text(CONFIGURATION + LATER)

    async def called(*args: str, answer: str = "") -> tuple[int, str]:
        runner = CliRunner()
        done = await asyncio.to_thread(runner.invoke, main, ["--config", str(path), "destination", *args], answer)
        return done.exit_code, done.output

    async with open_runtime(load(path, os.environ), os.environ):  # registers it
        pass
    code, out = await called("fill", "books", answer="n\n")
    assert (code, "1 events that books was never owed, first" in out) == (1, True)
    code, out = await called("fill", "books", "--yes")
    assert (code, "1 deliveries are owed to books" in out) == (0, True)
    code, out = await called("fill", "books", "--since", "2020-01-01", "--yes")
    assert (code, "1 deliveries are owed to books" in out) == (0, True)
    code, out = await called("fill", "books", "--since", "2020-01-01")
    assert (code, "0 events that books was never owed" in out) == (0, True)


def replace_event(event: RemoteEvent, **changes: Any) -> RemoteEvent:
    known = {name: getattr(event, name) for name in event.__struct_fields__}
    return RemoteEvent(**(known | changes))


async def test_what_was_pruned_or_erased_is_not_owed(setup: Any, consumer: Any) -> None:
    await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"), setup.sighting("evt_3"))
    await setup.writer.submit(erasure.erase_events, seqs=[2], now_us=1)
    pruned = select(EVENT.c.payload_id).where(EVENT.c.seq == 3)
    await setup.writer.submit(lambda c: c.execute(delete(PAYLOAD).where(PAYLOAD.c.id.in_(pruned))).rowcount)
    later = await added(setup, setup.http(consumer.url))
    assert (await fill(setup, later))["owed"] == 1
    assert await owed(setup, later) == {"evt_1": ("pending", None)}


async def test_a_fill_reads_no_table_or_index_as_a_whole(setup: Any) -> None:
    await plans.fill(setup)
    span = {"destination_id": setup.destination_id + 1, "start_us": 0, "end_us": 1 << 60, "after_seq": 20_000}
    steps = await plans.plans(setup, lambda c: fills.unowed(c, **span), reads=True)
    assert plans.whole(steps, "delivery", "event", "payload") == []
    assert "SEARCH delivery USING PRIMARY KEY" not in steps  # of all that is owed, for each event
