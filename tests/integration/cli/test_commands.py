"""The commands as processes: their output and their exit codes."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outside import PROGRAM, WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider(StripeFormat())


async def test_audit_names_what_the_handler_lost_with_a_read_key_alone(fake: FakeProvider, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    fake.backfill(250, now - timedelta(days=10), now - timedelta(hours=1), ["invoice.paid", "charge.failed"])
    processed, lost = fake.events[:-7], fake.events[-7:]
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api)
        ids = "id\n" + "\n".join(event.key for event in processed)
        command = ("audit", "stripe-live", "--since", "20d", "--against", "-")
        code, out, err = await gapless.call(*command, "--json", stdin=ids)
        assert code == 1, err
        report = json.loads(out)
        assert (report["listed"], report["found"], report["missing"]) == (250, 243, 7)
        assert {event["key"] for event in report["missing_events"]} == {event.key for event in lost}
        code, out, err = await gapless.call(*command, stdin="\n".join(event.key for event in fake.events))
        assert (code, "nothing is missing" in err, "0 missing" in out) == (0, True, True)
        code, out, _ = await gapless.call("audit", "stripe-live", "--since", "45d")
        assert "no longer lists the first" in out
        assert "nothing was compared" in out
        assert not (tmp_path / "none.db").exists()


async def test_check_says_what_is_wrong_and_what_to_do(fake: FakeProvider, tmp_path: Path) -> None:
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api)
        code, out, err = await gapless.call("check")
        assert code == 1, err
        assert "no endpoint has the path /webhooks/stripe-live" in out
        fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
        code, out, err = await gapless.call("check")
        assert code == 0, out + err
        assert "the clocks agree" in out
        gapless.environment = {"STRIPE_API_KEY": "sk_test_wrong"}
        code, out, _ = await gapless.call("check", "--offline")
        assert code == 1
        assert "use a live key or set livemode = false" in out
        assert "sk_test_wrong" not in out


async def test_a_broken_configuration_exits_with_2_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('[[source]]\nname = "Bad Name"\nprovider = "strype"\nevery = "5 parsecs"\n')
    gapless = Gapless(tmp_path, "sqlite:///x.db", "http://127.0.0.1:1")
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "--config", str(path), "serve", env=gapless.env, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"5 parsecs" in err
    assert b"Traceback" not in err


async def test_recorded_events_can_be_listed_shown_and_replayed(
    fake: FakeProvider, store_url: str, tmp_path: Path
) -> None:
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, store_url, api, consumer)) as gapless:
            fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
            await asyncio.sleep(1.1)
            event, lost = fake.emit("invoice.paid"), fake.emit("charge.failed", push=False)
            await until(lambda: len(consumer.ids) == 2)

            out = ""
            while not out:  # it is recorded at once, and missed when its grace is over
                _, out, err = await gapless.call("event", "list", "--missed", "--json")
            assert [json.loads(line)["key"] for line in out.splitlines()] == [lost.key], err
            code, out, _ = await gapless.call("event", "show", event.key)
            assert (code, json.loads(out)["payload"]["id"]) == (0, event.key)
            assert (await gapless.call("event", "show", "evt_none"))[0] == 1
            code, out, err = await gapless.call("status", "--json")
            (source,) = json.loads(out)["sources"]
            assert (source["losses"]["missed"], source["losses"]["recovered"]) == (1, 1)
            code, out, err = await gapless.call("source", "pass", "stripe-live", "--json")
            assert code == 0, err
            if store_url.startswith("sqlite"):  # by the daemon that holds the ledger
                code, out, err = await gapless.call("event", "replay", event.key, "--destination", "consumer", "--yes")
                assert code == 0, err
                await until(lambda: len(consumer.got[event.key]) == 2)
                assert consumer.changed_ids == {}
            code, out, err = await gapless.call("source", "list")
            assert "stripe-live" in out
            code, out, err = await gapless.call("db", "check")
            assert code == 0


async def test_event_fetch_prints_the_event_of_the_provider(
    fake: FakeProvider, sqlite_url: str, tmp_path: Path
) -> None:
    async with Consumer().serve() as consumer, fake.serve() as api:
        async with running(Gapless(tmp_path, sqlite_url, api, consumer)) as gapless:
            fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
            thin, snapshot = fake.emit("v2.core.account.closed"), fake.emit("invoice.paid")
            await until(lambda: len(consumer.ids) == 2)
            _, out, _ = await gapless.call("event", "show", thin.key)
            assert "data" not in json.loads(out)["payload"]
            code, out, err = await gapless.call("event", "fetch", thin.key)
            assert (code, json.loads(out)["data"]) == (0, {"of": thin.object_id}), err
            code, out, err = await gapless.call("event", "fetch", snapshot.key)
            assert (code, json.loads(out)["data"]["object"]["id"]) == (0, snapshot.object_id), err
            unseen = fake.emit("invoice.voided", push=False)
            code, _, err = await gapless.call("event", "fetch", "evt_unseen")
            assert (code, "name its source with --source" in err) == (2, True)
            code, out, err = await gapless.call("event", "fetch", unseen.key, "--source", "stripe-live")
            assert (code, json.loads(out)["id"]) == (0, unseen.key), err
            code, _, err = await gapless.call("event", "fetch", "evt_gone", "--source", "stripe-live")
            assert (code, "no longer has the event" in err) == (3, True)


async def test_a_pass_without_a_daemon_reaches_back_and_owes_nothing(
    fake: FakeProvider, sqlite_url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    fake.backfill(120, now - timedelta(days=3), now - timedelta(days=1), ["invoice.paid"])
    async with Consumer().serve() as consumer, fake.serve() as api:
        gapless = Gapless(tmp_path, sqlite_url, api, consumer)
        code, out, err = await gapless.call("source", "pass", "stripe-live", "--since", "5d", "--json")
        assert code == 0, err
        assert [(row["outcome"], row["found"], row["missed"]) for row in json.loads(out)] == [("found", 120, 0)]
        assert len(await gapless.ledger_ids()) == 120
        code, out, err = await gapless.call("status", "--json")
        (destination,) = json.loads(out)["destinations"]
        assert destination["backlog"]["pending"] == 0
        code, out, err = await gapless.call("quarantine", "list")
        assert code == 0
        code, out, err = await gapless.call("dead", "list")
        assert code == 0
        code, out, err = await gapless.call("dead", "list", "--destination", destination["name"])
        assert (code, "no delivery matches" in err) == (0, True)
        code, out, err = await gapless.call("dead", "discard", "--destination", destination["name"], "--note", "old")
        assert (code, out) == (1, "0 deliveries\n"), err
        code, out, err = await gapless.call("dead", "list", "--destination", "nowhere")
        assert (code, out, "'nowhere' is not known" in err) == (2, "", True)


async def test_an_endpoint_is_registered_and_repaired(fake: FakeProvider, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    url = "https://hooks.example/webhooks/stripe-live"
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api)
        command = ("source", "register", "stripe-live", "--url", url, "--secret-file", str(secret))
        code, out, err = await gapless.call(*command, "--type", "invoice.*")
        assert code == 0, err
        (endpoint,) = fake.endpoints
        assert (endpoint.url, endpoint.types) == (url, ("invoice.*",))
        assert secret.read_text() == f"{endpoint.secret}\n"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert endpoint.secret not in out + err
        code, out, _ = await gapless.call(*command)
        assert (code, len(fake.endpoints)) == (0, 1)
        assert "the endpoint exists already: we_0" in out
        endpoint.enabled = False
        code, out, _ = await gapless.call("source", "repair", "stripe-live", "--url", url)
        assert (code, endpoint.enabled) == (0, True)
        code, out, _ = await gapless.call("source", "repair", "stripe-live", "--url", "https://hooks.example/other")
        assert (code, "no endpoint has the path /other" in out) == (1, True)
