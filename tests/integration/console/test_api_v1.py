"""The API of attempts, dead letters and jobs: pages with cursors, filters, roles, and what strangers send."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from gapless.console.auth import Access
from gapless.destinations.contract import Answer
from gapless.domain import Via, to_us
from gapless.ledger import attempts
from gapless.ledger.tables import ATTEMPT, DELIVERY, EVENT
from gapless.operations.registry import perform
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
OWNER = {"authorization": "Bearer run-token-of-this-process"}
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("a-long-token-0123"))
READS = ("/api/v1/attempts?source=acme&key=evt_0", "/api/v1/dead-letters", "/api/v1/held/count", "/api/v1/jobs")


@pytest.fixture
async def shop(console: Any) -> Any:
    """Five dead letters of `shop`, evt_0 to evt_4, the last one of another source; evt_0 was tried three times."""
    await console.add_source("other")
    console.shop_id = await console.add_destination("shop")
    await console.record(Via.WEBHOOK, *(f"evt_{n}" for n in range(4)))
    await console.record(Via.WEBHOOK, "evt_4", source="other")
    dead = {"state": "dead", "reason": "timeout", "attempts": 15, "done_us": to_us(console.now[0])}
    await console.context.runtime.write(lambda c: c.execute(update(DELIVERY).values(dead)).rowcount)
    seq = await console.sql(select(EVENT.c.seq).where(EVENT.c.key == "evt_0"))
    stored = attempts.encoded(Answer(headers={"server": "x"}, body="no card 4242-4242"))
    rows = [
        {"destination_id": console.shop_id, "event_seq": seq, "at_us": n, "duration_us": 9, "outcome": "consumer_5xx",
         "detail": "HTTP 500", "status": 500, "answer": stored}
        for n in range(3)
    ]  # fmt: skip
    await console.context.runtime.write(lambda c: c.execute(insert(ATTEMPT), rows).rowcount)
    return console


async def pages(client: Any, path: str) -> list[list[Any]]:
    """Every page of a list."""
    found, cursor = [], ""
    while True:
        answer = (await client.get(f"{path}{cursor}", headers=OWNER)).json()
        found.append(answer["items"])
        if answer["next"] is None:
            return found
        cursor = f"&cursor={answer['next']}"


@pytest.mark.usefixtures("shop")
async def test_lists_come_in_pages(listen: Any) -> None:
    async with listen() as client:
        tried = await pages(client, "/api/v1/attempts?source=acme&key=evt_0&limit=2")
        letters = await pages(client, "/api/v1/dead-letters?limit=2")
    assert [len(page) for page in tried] == [2, 1]
    first = tried[0][0]
    answer = {"headers": {"server": "x"}, "body": "no card 4242-4242", "is_cut": False}
    assert (first["status"], first["outcome"], first["answer"]) == (500, "consumer_5xx", answer)
    assert [row["key"] for page in letters for row in page] == [f"evt_{n}" for n in range(5)]
    assert {row["reason"] for page in letters for row in page} == {"timeout"}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 5),
        ("?source=acme", 4),
        ("?source=acme&type=invoice.*&type=x", 4),
        ("?type=charge.failed", 0),
        ("?since=2026-11-20T12:30:00Z&until=2026-11-20T12:30:01Z", 5),
        ("?until=2026-11-20T12:30:00Z", 0),
        ("?destination=shop&reason=timeout&object=in_1", 0),
    ],
)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.usefixtures("shop")
async def test_dead_letters_are_counted_by_filter(listen: Any, query: str, count: int) -> None:
    async with listen() as client:
        answer = await client.get(f"/api/v1/dead-letters/count{query}")
        assert answer.json()["count"] == count, answer.text
        assert len((await client.get(f"/api/v1/dead-letters{query}")).json()["items"]) == count


async def test_what_is_asked_for_is_done_and_told(shop: Any, listen: Any) -> None:
    async with listen() as client:

        async def ask(path: str, **args: Any) -> Any:
            answer = await client.post(path, json=args, headers=OWNER)
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert await ask("/api/v1/dead-letters/requeue", keys=["evt_1"], dry_run=True) == {"count": 1}
        assert await ask("/api/v1/dead-letters/requeue", keys=["evt_1"]) == {"requeued": 1}
        assert await ask("/api/v1/dead-letters/discard", keys=["evt_2"], note="not wanted") == {"discarded": 1}
        assert await ask("/api/v1/held/release") == {"released": 0}
        since = (shop.now[0] - timedelta(days=1)).isoformat()
        begun = await ask("/api/v1/events/replay", destination="shop", since=since, rate=5)
        assert begun == {"job": 1, "count": 5}
        shown = (await client.get("/api/v1/jobs/1")).json()
        assert (shown["kind"], shown["state"], shown["count"], shown["done"], shown["rate"]) == (
            "event.replay", "running", 5, 0, 5.0,
        )  # fmt: skip
        assert (await client.get("/api/v1/jobs?running=true")).json() == {"items": [shown], "next": None}
        assert await ask("/api/v1/jobs/1/cancel", note="enough") == {"cancelled": [1]}
        assert (await client.get("/api/v1/jobs/1")).json()["state"] == "cancelled"
        assert (await client.get("/api/v1/jobs/2")).status_code == 404


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_each_role_gets_what_it_may(shop: Any, listen: Any) -> None:
    tokens = {}
    for role in ("viewer", "operator", "metrics", "consumer"):
        bound = {"destinations": ["shop"]} if role == "consumer" else {}
        args = {"name": role, "role": role, "expires": None, **bound}
        tokens[role] = (await perform(shop.context, "token.create", args))["token"]
    async with listen(access=WIDE) as client:
        for role, reads, writes in (
            ("viewer", 200, 403),
            ("operator", 200, 200),
            ("metrics", 403, 403),
            ("consumer", 403, 403),
        ):
            headers = {"authorization": f"Bearer {tokens[role]}"}
            assert {(await client.get(path, headers=headers)).status_code for path in READS} == {reads}, role
            done = await client.post("/api/v1/dead-letters/requeue", json={"source": "other"}, headers=headers)
            assert done.status_code == writes, role
        assert {(await client.get(path)).status_code for path in READS} == {401}


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_limited_token_sees_only_its_own(shop: Any, listen: Any) -> None:
    since = (shop.now[0] - timedelta(days=1)).isoformat()
    await perform(shop.context, "event.replay", {"destination": "shop", "since": since, "rate": 5})
    args = {"name": "ann", "role": "viewer", "expires": None, "sources": ["other"]}
    headers = {"authorization": f"Bearer {(await perform(shop.context, 'token.create', args))['token']}"}
    async with listen(access=WIDE) as client:

        async def seen(path: str) -> Any:
            return await client.get(path, headers=headers)

        assert [row["key"] for row in (await seen("/api/v1/dead-letters")).json()["items"]] == ["evt_4"]
        assert (await seen("/api/v1/dead-letters/count")).json()["count"] == 1
        assert (await seen("/api/v1/dead-letters?source=acme")).status_code == 403
        assert (await seen("/api/v1/attempts?source=acme&key=evt_0")).status_code == 403
        assert (await seen("/api/v1/jobs")).json() == {"items": [], "next": None}
        assert (await seen("/api/v1/jobs/1")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/attempts",
        "/api/v1/attempts?source=acme",
        "/api/v1/attempts?source=acme&key=%00",
        "/api/v1/attempts?source=acme&key=evt_0&key=evt_1",
        "/api/v1/attempts?source=acme&key=evt_0&cursor=x",
        "/api/v1/attempts?source=acme&key=evt_0&destination=nowhere",
        "/api/v1/dead-letters?limit=0",
        "/api/v1/dead-letters?limit=1e9",
        "/api/v1/dead-letters?cursor=9",
        "/api/v1/dead-letters?cursor=99999999999999999999.1",
        "/api/v1/dead-letters?since=yesterday",
        "/api/v1/dead-letters?since=2026-11-20T12:00:00",
        "/api/v1/dead-letters?sauce=acme",
        "/api/v1/dead-letters?reason=%00",
        "/api/v1/dead-letters?type=" + "&type=".join("x" * 101),
        "/api/v1/jobs?cursor=-1",
        "/api/v1/jobs?cursor=99999999999999999999999",
        "/api/v1/jobs?running=perhaps",
        "/api/v1/jobs/x",
        "/api/v1/jobs/99999999999999999999999",
    ],
)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.usefixtures("shop")
async def test_what_makes_no_sense_is_refused_with_a_sentence(listen: Any, path: str) -> None:
    async with listen() as client:
        answer = await client.get(path)
        assert answer.status_code in (400, 404), answer.text
        assert answer.json()["error"]


@pytest.mark.usefixtures("shop")
async def test_invalid_utf_8_and_unknown_events_are_no_error_of_ours(listen: Any) -> None:
    async with listen() as client:
        for path in ("/api/v1/attempts?source=acme&key=%ff", "/api/v1/attempts?source=nobody&key=evt_0"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (200, {"items": [], "next": None})


async def test_the_api_masks_what_the_source_masks(shop: Any, listen: Any) -> None:
    body = b'{"card": "4242-4242"}'
    await shop.context.runtime.write(lambda c: c.exec_driver_sql("DELETE FROM attempt WHERE at_us > 0").rowcount)
    change = "UPDATE payload SET body = :body"

    await shop.context.runtime.write(lambda c: c.execute(text(change), {"body": body}).rowcount)
    shop.context.sources.change("acme", mask=("/card",))
    async with listen() as client:
        (row,) = (await client.get("/api/v1/attempts?source=acme&key=evt_0")).json()["items"]
        assert row["answer"]["body"] == "no card ***"
