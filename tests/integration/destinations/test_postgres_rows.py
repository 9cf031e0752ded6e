"""What the team's own table has after a delivery, a retry and a replay. The table is made as the page says."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import run_sql
from own_brokers import PAYLOAD, TIME, client_library, context, delivery
from sqlalchemy.engine import make_url
from storm.proxy import Proxy, to_port, to_socket

from gapless.destinations.contract import Delivered, DestinationInvalid, Failed, FailureReason
from gapless.destinations.headers import NAMES
from gapless.destinations.postgres import PostgresOptions, PostgresSender, refusal
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret

asyncpg = client_library("postgres", "asyncpg")
pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[3] / "docs/brokers.md"
FOUND = re.search(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
TABLE = FOUND[1] if FOUND else ""


@pytest.fixture
async def url(postgres_url: str) -> str:
    await run_sql(postgres_url, TABLE.partition("GRANT")[0])
    return postgres_url


def sender(url: str, **options: Any) -> PostgresSender:
    return PostgresSender(PostgresOptions(url=SecretRef(value=Secret(url)), **options), context())


async def rows(url: str, table: str = "gapless_event") -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1")]
    finally:
        await connection.close()


def failure(result: object) -> tuple[FailureReason, bool]:
    assert isinstance(result, Failed), result
    return result.reason, result.permanent


async def test_a_row_has_the_headers_and_the_payload_as_received(url: str) -> None:
    sent, one = sender(url), delivery(livemode=False)
    assert await sent.address_problems() == []
    assert await sent.send(one) == Delivered()
    await sent.close()
    (row,) = await rows(url)
    assert row.pop("received_at") is not None
    assert row == {
        "idempotency_key": one.id, "gapless_event_id": one.id, "gapless_event_key": "evt_1", "gapless_source": "acme",
        "gapless_event_type": "invoice.paid", "gapless_stream": None, "gapless_via": "webhook", "gapless_mode": "test",
        "gapless_occurred_at": TIME, "gapless_object": None, "gapless_late": None, "gapless_attempt": 1,
        "payload": PAYLOAD,
    }  # fmt: skip
    assert {name.replace("-", "_") for name in NAMES} | {"payload"} == row.keys()


async def test_a_retry_and_a_replay_leave_the_row_as_it_is(url: str) -> None:
    sent, one = sender(url), delivery()
    results = [
        await sent.send(one),
        await sent.send(replace(one, attempt=2)),
        await sent.send(replace(one, generation=1)),
    ]
    await sent.close()
    assert results == [Delivered(), *[Delivered(detail="the row was there already")] * 2]
    (row,) = await rows(url)
    assert row["gapless_attempt"] == 1


@pytest.mark.parametrize("kind", ["text", "json", "jsonb"])
async def test_a_payload_may_be_kept_as_text_or_json(url: str, kind: str) -> None:
    await run_sql(url, f"ALTER TABLE gapless_event ALTER payload TYPE {kind} USING '0'::{kind}")
    sent = sender(url)
    assert await sent.send(delivery()) == Delivered()
    assert failure(await sent.send(delivery("evt_2", payload=b"\xff"))) == (FailureReason.CANNOT_RENDER, True)
    form = await sent.send(delivery("evt_3", payload=b"id=evt_3&secret=4111111111111111"))
    if kind == "text":
        assert form == Delivered()
    else:
        assert failure(form) == (FailureReason.REJECTED, True)
        assert isinstance(form, Failed)
        assert "411111" not in form.detail
    await sent.close()


async def test_a_table_that_is_not_as_it_must_be_is_named(url: str) -> None:
    absent, wrong = sender(url, table="billing.events"), sender(url)
    assert await absent.address_problems() == [
        'table billing.events: UndefinedTableError: relation "billing.events" does not exist'
    ]
    assert failure(await absent.send(delivery())) == (FailureReason.CONSUMER_ERROR, False)
    await run_sql(url, "ALTER TABLE gapless_event ALTER payload TYPE integer USING 0")
    assert await wrong.address_problems() == ["the column payload is of type int4; wanted bytea, text, json or jsonb"]
    assert failure(await wrong.send(delivery())) == (FailureReason.CONSUMER_ERROR, False)
    await run_sql(url, "ALTER TABLE gapless_event ALTER payload TYPE bytea USING ''::bytea")
    assert await wrong.send(delivery()) == Delivered()
    for each in (absent, wrong):
        await each.close()


async def test_the_rights_that_the_page_names_are_enough(url: str) -> None:
    await run_sql(url, "CREATE ROLE gapless_of_rows LOGIN PASSWORD 'x'")
    try:
        await run_sql(url, "GRANT INSERT, SELECT (idempotency_key) ON gapless_event TO gapless_of_rows")
        user = make_url(url).set(username="gapless_of_rows", password="x").render_as_string(hide_password=False)
        sent = sender(user)
        assert await sent.send(delivery()) == Delivered()
        assert await sent.send(delivery()) == Delivered(detail="the row was there already")
        await sent.close()
    finally:
        await run_sql(url, "DROP OWNED BY gapless_of_rows; DROP ROLE gapless_of_rows")


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    address = make_url(url)
    host, port = str(address.query.get("host") or address.host), address.port or 5432
    behind = to_socket(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else to_port(port)
    async with Proxy(behind).serve() as proxy:
        yield proxy


def through(proxy: Proxy, url: str) -> str:
    return make_url(url).set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)


async def test_the_connection_heals_after_it_was_cut(url: str, proxy: Proxy) -> None:
    sent = sender(through(proxy, url))
    assert await sent.send(delivery("evt_1")) == Delivered()
    assert proxy.cut() == 1
    results = [await sent.send(delivery("evt_2"))]
    while not isinstance(results[-1], Delivered):
        assert failure(results[-1]) == (FailureReason.CONNECTION, False)
        results.append(await sent.send(delivery("evt_2")))
    await sent.close()
    assert len(results) <= 3
    assert len(await rows(url)) == 2


async def test_an_attempt_on_a_silent_connection_ends_with_its_timeout(url: str, proxy: Proxy) -> None:
    sent = sender(through(proxy, url))
    assert await sent.send(delivery("evt_1")) == Delivered()
    assert proxy.fall_silent() == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await sent.send(delivery("evt_2"))
    assert await sent.send(delivery("evt_2")) == Delivered()  # on a new one
    await sent.close()
    assert len(await rows(url)) == 2


async def test_no_server_and_a_bad_address_are_failed_connections() -> None:
    async with Proxy(to_port(1)).serve() as proxy:
        port = proxy.port
    for address in (f"postgresql://gapless:hunter2@127.0.0.1:{port}/x", "postgres//hunter2"):
        sent = sender(address)
        result = await sent.send(delivery())
        assert failure(result) == (FailureReason.CONNECTION, False)
        (problem,) = await sent.address_problems()
        assert "hunter2" not in f"{result}{problem}"
        await sent.close()


def test_what_can_never_be_stored_is_permanent_and_nothing_else() -> None:
    reasons = {state: failure(refusal(state, "x")) for state in ("22P02", "23502", "42P01", "57P01", "53300", "")}
    assert reasons == {
        "22P02": (FailureReason.REJECTED, True),
        "23502": (FailureReason.CONSUMER_ERROR, False),
        "42P01": (FailureReason.CONSUMER_ERROR, False),
        "57P01": (FailureReason.CONNECTION, False),
        "53300": (FailureReason.CONNECTION, False),
        "": (FailureReason.CONSUMER_ERROR, False),
    }


def test_a_destination_without_an_address_is_refused() -> None:
    with pytest.raises(DestinationInvalid, match="there is no url; set url_env or url_file"):
        PostgresSender(PostgresOptions(), context())
