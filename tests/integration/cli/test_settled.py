"""The commands that settle what waits for a person, and that show attempts and jobs, without a daemon."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, insert, select

from gapless.cli.main import main
from gapless.destinations.contract import Answer
from gapless.domain import to_us
from gapless.ledger import attempts, destinations, sources
from gapless.ledger.engine import open_store
from gapless.ledger.tables import ATTEMPT, DELIVERY, EVENT, JOB, PAYLOAD, STREAM

CONFIG = """
[store]
url = "{url}"
[[source]]
name = "acme"
provider = "stripe"
mask = ["/card"]
[source.options]
webhook_secret_env = "SECRET"
api_key_env = "KEY"
[[destination]]
name = "shop"
url = "https://shop.example/hook"
signature = "none"
"""
ENVIRONMENT = {"SECRET": "whsec_1", "KEY": "sk_live_fake"}
COUNT = 1_030


class Shop:
    """A ledger with events of which every tenth is a dead letter of `shop`, and one of them was tried twice."""

    def __init__(self, folder: Path, url: str) -> None:
        self.config, self.url, self.now = folder / "gapless.toml", url, datetime.now(UTC)
        self.config.write_text(CONFIG.format(url=url))

    def call(self, *command: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(main, ["--config", str(self.config), *command], env=ENVIRONMENT, input=answer)

    def run(self, work: Callable[[Connection], object]) -> object:
        async def run() -> object:
            store = open_store(self.url)
            try:
                return await store.write(work)
            finally:
                await store.close()

        return asyncio.run(run())

    def fill(self, connection: Connection) -> None:
        at_us = to_us(self.now - timedelta(hours=1))
        source_id = sources.register_source(
            connection, "acme", "stripe", "hybrid", self.now - timedelta(days=9), self.now
        )
        stream_id = connection.execute(select(STREAM.c.id)).scalar_one()
        shop_id = destinations.register_destination(connection, "shop", self.now - timedelta(days=9))
        one = {"source_id": source_id, "stream_id": stream_id, "via": "webhook", "first_seen_us": at_us}
        numbers = range(1, COUNT + 1)
        rows = [
            {**one, "seq": n, "key": f"evt_{n}", "type": f"t{n % 2}", "occurred_us": at_us, "payload_id": n}
            for n in numbers
        ]
        connection.execute(insert(EVENT), rows)
        body = b'{"card": "4242-4242"}'
        connection.execute(insert(PAYLOAD), [{"id": n, "body": body, "stored_us": at_us} for n in numbers])
        dead = {"destination_id": shop_id, "state": "dead", "reason": "consumer_5xx", "attempts": 15, "done_us": at_us}
        owed = [{**dead, "event_seq": n, "next_us": 1, "created_us": at_us} for n in numbers if n % 10 == 0]
        connection.execute(insert(DELIVERY), owed)
        answer = attempts.encoded(Answer(headers={"server": "x"}, body="no card\n4242-4242", is_cut=False))
        tried = {"destination_id": shop_id, "event_seq": 10, "duration_us": 1_500_000, "outcome": "consumer_5xx"}
        said = [{**tried, "at_us": at_us + n, "detail": "HTTP 500", "status": 500, "answer": answer} for n in (1, 2)]
        connection.execute(insert(ATTEMPT), said)

    def states(self) -> dict[str, int]:
        rows = self.run(lambda connection: connection.execute(select(DELIVERY.c.state)).scalars().all())
        found = list(rows)  # type: ignore[call-overload]
        return {state: found.count(state) for state in set(found)}


@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str) -> Shop:
    shop = Shop(tmp_path, sqlite_url)
    shop.run(shop.fill)
    return shop


def test_attempts_are_shown_with_what_was_answered_and_masked(shop: Shop) -> None:
    table = shop.call("event", "attempts", "evt_10")
    assert table.exit_code == 0, table.output
    assert "HTTP 500" in table.stdout
    assert "no card ***" in table.stdout
    rows = [json.loads(line) for line in shop.call("event", "attempts", "evt_10", "--json").stdout.splitlines()]
    assert [(row["status"], row["duration_s"], row["destination"]) for row in rows] == [(500, 1.5, "shop")] * 2
    assert rows[0]["answer"] == {"headers": {"server": "x"}, "body": "no card\n***", "is_cut": False}
    assert len(json.loads(shop.call("event", "show", "evt_10").stdout)["attempts"]) == 2
    assert shop.call("event", "attempts", "evt_none").exit_code == 1
    assert "not known" in shop.call("event", "attempts", "evt_10", "--destination", "nowhere").stderr
    assert "nothing was tried yet" in shop.call("event", "attempts", "evt_11").output


def test_dead_letters_are_listed_page_by_page(shop: Shop) -> None:
    first = shop.call("dead", "list", "--source", "acme", "--type", "t*", "--limit", "60", "--json")
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    rest = shop.call("dead", "list", "--after", rows[-1]["position"], "--json")
    rows += [json.loads(line) for line in rest.stdout.splitlines()]
    assert [row["key"] for row in rows] == [f"evt_{n}" for n in range(10, COUNT + 1, 10)]
    assert "there may be more: --after " in shop.call("dead", "list", "--limit", "1").stderr
    assert "no delivery matches" in shop.call("dead", "list", "--type", "t1").output
    assert "is no position" in shop.call("dead", "list", "--after", "x").stderr


def test_what_is_settled_is_counted_first_and_confirmed(shop: Shop) -> None:
    chosen = ("--destination", "shop", "--reason", "consumer_5xx")
    dry = shop.call("dead", "requeue", *chosen, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "103 deliveries\n")
    declined = shop.call("dead", "requeue", *chosen, answer="n\n")
    assert (declined.exit_code, shop.states()) == (1, {"dead": 103})
    done = shop.call("dead", "requeue", "evt_10", "evt_20", "--yes")
    assert (done.exit_code, "2 deliveries will be sent again" in done.stdout) == (0, True), done.output
    assert shop.call("dead", "discard", "--yes").exit_code == 2
    gone = shop.call("dead", "discard", "--since", "2h", "--yes", "--note", "not wanted")
    assert "101 deliveries are given up" in gone.stdout, gone.output
    assert shop.states() == {"pending": 2}
    (row,) = [json.loads(line) for line in shop.call("event", "attempts", "evt_30", "--json").stdout.splitlines()]
    assert row["outcome"] == "discarded"
    assert row["detail"].endswith(": not wanted")
    assert shop.call("dead", "requeue", "--yes").exit_code == 1


def test_without_a_daemon_the_command_works_a_job_to_its_end(shop: Shop) -> None:
    replay = ("event", "replay", "--since", "2h", "--destination", "shop")
    assert shop.call(*replay, "--type", "t1", "--dry-run").stdout.startswith(f"{COUNT // 2} events")
    done = shop.call(*replay, "--yes", "--note", "the handler was broken")
    assert done.exit_code == 0, done.output
    assert f"job 1 finished: {COUNT} done, 0 left out" in done.stdout
    assert shop.states() == {"pending": COUNT}
    assert "no job runs" in shop.call("job", "list").output
    assert "finished" in shop.call("job", "list", "--all").stdout
    (row,) = [json.loads(line) for line in shop.call("job", "list", "--all", "--json").stdout.splitlines()]
    assert json.loads(shop.call("job", "show", "1").stdout) == row
    assert (row["count"], row["done"], row["reason"]) == (COUNT, COUNT, "the handler was broken")
    assert shop.call("job", "show", "2").exit_code == 1


def test_a_job_that_was_left_can_be_run_or_cancelled(shop: Shop) -> None:
    shop.call("event", "replay", "--since", "2h", "--destination", "shop", "--yes")
    back = {"state": "running", "cursor_seq": 1000, "done": 1000, "ended_us": None}
    shop.run(lambda connection: connection.execute(JOB.update().values(**back)))
    assert "running" in shop.call("job", "list").stdout
    done = shop.call("job", "run", "1")
    assert f"job 1 finished: {COUNT} done" in done.stdout, done.output
    shop.run(lambda connection: connection.execute(JOB.update().values(**back)))
    cancelled = shop.call("job", "cancel", "1", "--note", "enough")
    assert cancelled.stdout == "cancelled: 1 jobs\n", cancelled.output
    assert "has ended already" in shop.call("job", "cancel", "1").stderr
