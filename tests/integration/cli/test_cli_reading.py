"""Commands that read a provider's list: audit, check, and passes without a daemon."""

import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy import func, select

from gapless.ledger.tables import DELIVERY, EVENT, PASS
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio


@pytest.fixture
def fake() -> FakeProvider:
    made, now = FakeProvider(StripeFormat()), datetime.now(UTC)
    made.backfill(120, now - timedelta(days=6), now - timedelta(hours=1), ["invoice.paid", "charge.failed"])
    return made


@pytest.fixture
async def gapless(fake: FakeProvider, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Gapless]:
    """A configuration without a running daemon."""
    async with fake.serve() as api:
        yield Gapless(tmp_path, sqlite_url, api)


async def test_audit_writes_every_missing_id_into_a_file(gapless: Gapless, fake: FakeProvider, tmp_path: Path) -> None:
    ids, out = tmp_path / "ids.csv", tmp_path / "missing.txt"
    ids.write_text("﻿Event ID,amount\n" + "".join(f"{event.key},1\n" for event in fake.events[:90]))
    code, text, err = await gapless.call(
        "audit", "stripe-live", "--since", "7d", "--against", str(ids), "--missing-out", str(out)
    )
    assert code == 1, err
    assert "120 listed, 90 processed, 30 missing" in text
    assert "… and 10 more" in text
    assert set(out.read_text().split()) == {event.key for event in fake.events[90:]}
    assert "are not in this list" not in text


async def test_audit_of_some_types_says_which_and_counts_strange_ids(gapless: Gapless, fake: FakeProvider) -> None:
    ids = "\n".join([event.key for event in fake.events] + ["evt_of_somebody_else"])
    command = ("audit", "stripe-live", "--since", "7d", "--type", "invoice.*", "--against", "-")
    code, text, _ = await gapless.call(*command, stdin=ids)
    assert code == 0
    assert "types invoice.*" in text
    assert "60 listed, 60 processed, 0 missing" in text
    assert "61 of your ids are not in this list" in text


async def test_audit_refuses_a_file_that_it_cannot_read(gapless: Gapless) -> None:
    code, text, err = await gapless.call("audit", "stripe-live", "--against", "-", stdin='{"id": "evt_1"}\n{"no": 1}\n')
    assert (code, text) == (2, "")
    assert "line 2: it names no event" in err


async def test_audit_exits_with_3_if_the_list_cannot_be_read(gapless: Gapless, fake: FakeProvider) -> None:
    fake.faults.key_revoked = True
    code, text, err = await gapless.call("audit", "stripe-live", "--against", "-", stdin="evt_1\n")
    assert (code, text) == (3, "")
    assert "401" in err
    assert "Traceback" not in err


async def test_a_dry_run_makes_the_requests_and_writes_nothing(gapless: Gapless, fake: FakeProvider) -> None:
    assert (await gapless.call("source", "pass", "stripe-live", "--since", "2d"))[0] == 0
    recorded, requests, passes = await gapless.ledger_ids(), len(fake.requests), await pass_count(gapless)
    code, out, err = await gapless.call("source", "pass", "stripe-live", "--since", "7d", "--dry-run", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["listed"], report["found"]) == (120, len(recorded))
    assert {event["key"] for event in report["missing_events"]} == {event.key for event in fake.events} - recorded
    assert len(fake.requests) > requests
    assert await gapless.ledger_ids() == recorded
    assert await pass_count(gapless) == passes


async def pass_count(gapless: Gapless) -> int:
    return await gapless.read(lambda connection: connection.execute(select(func.count(PASS.c.id))).scalar_one())


async def test_a_pass_with_deliver_asks_and_delivers_once(fake: FakeProvider, store_url: str, tmp_path: Path) -> None:
    async with Consumer().serve() as consumer, fake.serve() as api:
        gapless = Gapless(tmp_path, store_url, api, consumer)
        imported = [event.key for event in fake.events[:20]]
        assert (await gapless.call("import", "stripe-live", "-", stdin="\n".join(imported)))[0] == 0
        command = ("source", "pass", "stripe-live", "--since", "7d", "--deliver")
        code, _, err = await gapless.call(*command, stdin="n\n")
        assert code == 1
        assert "consumer: 100 events, first " in err
        assert await gapless.read(lambda c: c.execute(select(func.count()).select_from(DELIVERY)).scalar_one()) == 0
        code, _, err = await gapless.call(*command, "--yes")
        assert code == 0, err
        assert "100 deliveries are owed" in err
        code, _, err = await gapless.call(*command, "--yes")
        assert (code, "there is nothing to deliver" in err) == (0, True)
        async with running(gapless):
            await until(lambda: len(consumer.ids) == 100)
        assert not consumer.ids & set(imported)
        assert all(len(marks) == 1 for marks in consumer.got.values())


async def test_deliver_wants_a_time_to_begin_at(gapless: Gapless) -> None:
    code, _, err = await gapless.call("source", "pass", "stripe-live", "--deliver")
    assert code == 2
    assert "--deliver needs --since" in err


@pytest.mark.slow
async def test_a_pass_with_a_rejected_key_ends_with_the_reason(gapless: Gapless, fake: FakeProvider) -> None:
    fake.faults.key_revoked = True
    code, out, err = await gapless.call("source", "pass", "stripe-live", "--since", "7d", "--json")
    assert code == 1, err
    assert ["401" in row["last_error"] for row in json.loads(out)] == [True]


async def test_check_reports_a_private_address_and_a_small_budget(fake: FakeProvider, tmp_path: Path) -> None:
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api, Consumer(port=9))
        fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
        path = gapless.config
        text = path.read_text().replace('allow = ["127.0.0.1"]', "").replace("requests = 100000000", "requests = 10")
        other = tmp_path / "other.toml"
        other.write_text(text)
        code, out, err = await gapless.call("--config", str(other), "check", "--json")
        assert code == 1, err
        report = {(each["subject"], each["verdict"]): each["text"] for each in json.loads(out)}
        assert "127.0.0.1, which is not public" in report["destination consumer", "problem"]
        assert "The grant is short" in report["source stripe-live", "warning"]


async def test_check_names_a_clock_that_is_wrong(tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), clock=lambda: datetime.now(UTC) - timedelta(minutes=3))
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api)
        fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
        code, out, err = await gapless.call("check")
        assert code == 1, err
        assert any(f"our clock differs from the provider's by +{seconds} s" in out for seconds in (180, 181))


async def test_serve_on_a_port_in_use_says_so_and_exits_with_3(gapless: Gapless) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", gapless.public_port))
        taken.listen()
        code, _, err = await gapless.call("serve")
    assert code == 3
    assert f"cannot listen on 127.0.0.1:{gapless.public_port}" in err
    assert "Traceback" not in err


async def test_commands_without_a_ledger_say_how_it_is_made(fake: FakeProvider, tmp_path: Path) -> None:
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api)
        for command in (("status",), ("event", "list"), ("dead", "list"), ("source", "list")):
            code, out, err = await gapless.call(*command)
            assert (code, out) == (2, "")
            assert "`gapless serve` makes one" in err
        assert not (tmp_path / "none.db").exists()


async def test_import_records_the_lines_before_a_bad_one(gapless: Gapless) -> None:
    good = "".join(f"evt_{number},x\n" for number in range(1500))
    code, _, err = await gapless.call("import", "stripe-live", "-", stdin=f"id,type\n{good},y\nevt_last,x\n")
    assert code == 2
    assert "line 1502: it names no event" in err
    assert "the 1500 events before it are recorded" in err
    code, out, err = await gapless.call(
        "import", "stripe-live", "-", "--skip-bad", "--json", stdin=f"id,type\n{good},y\nevt_last,x\n"
    )
    assert (code, json.loads(out)) == (0, {"new": 1, "known": 1500, "skipped": 1}), err
    vias = await gapless.read(lambda connection: set(connection.execute(select(EVENT.c.via)).scalars()))
    assert vias == {"import"}


async def test_import_into_an_unknown_source_names_the_known_ones(gapless: Gapless) -> None:
    code, _, err = await gapless.call("import", "stripe-test", "-", stdin="evt_1\n")
    assert code == 2
    assert "source 'stripe-test' is not configured; configured: stripe-live" in err


async def test_a_signed_sample_is_accepted_by_our_own_listener(fake: FakeProvider, gapless: Gapless) -> None:
    event = fake.events[0]
    body = StripeFormat().encode(event).decode()
    async with running(gapless):
        code, out, err = await gapless.call("event", "send", "stripe-live", "-", stdin=body)
        assert (code, out.split()[:1]) == (0, ["200"]), err
        await until(gapless.ledger_ids)
        code, out, _ = await gapless.call("event", "list", "--via", "webhook", "--json")
        assert [json.loads(line)["key"] for line in out.splitlines()] == [event.key]
    code, _, err = await gapless.call("event", "send", "stripe-live", "-", stdin=body)
    assert code == 3
    assert "Traceback" not in err
