"""The API under `/api/v1` over real HTTP: searches and their cursors, one event, limits of tokens, problems."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from gapless.console.auth import Access
from gapless.domain import Mode, Sources, Via, to_us
from gapless.ledger.tables import ATTEMPT, DELIVERY, EVENT, MISSING, PAYLOAD, PERFORMED, QUARANTINE, UNRECOVERABLE
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
RUN = {"authorization": "Bearer run-token-of-this-process"}
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("long-token"))
LISTS = (
    "status", "events", "missed", "missing", "passes", "unrecoverable", "quarantine", "dead-letters", "destinations",
    "sources", "audit-log", "tokens", "sources/acme/hours",
)  # fmt: skip


async def token(console: Any, name: str, role: str, **more: Any) -> dict[str, str]:
    from gapless.operations.registry import perform  # noqa: PLC0415

    made = await perform(console.context, "token.create", {"name": name, "role": role, "expires": None, **more})
    return {"authorization": f"Bearer {made['token']}"}


async def change(console: Any, key: str, **values: Any) -> None:
    where = EVENT.c.key == key
    await console.context.runtime.write(lambda c: c.execute(update(EVENT).where(where).values(**values)).rowcount)


async def keys(client: Any, **query: Any) -> list[str]:
    answer = await client.get("/api/v1/events", params=query)
    assert answer.status_code == 200, answer.text
    return [each["key"] for each in answer.json()["items"]]


async def test_every_list_answers_an_empty_ledger(listen: Any) -> None:
    async with listen() as client:
        for path in LISTS:
            answer = await client.get(f"/api/v1/{path}")
            assert answer.status_code == 200, (path, answer.text)
            assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_events_are_found_by_what_an_operator_knows(console: Any, listen: Any) -> None:
    await console.add_destination("shop")
    await console.add_source("other")
    await console.record(Via.WEBHOOK, "evt_1", "evt_2", ago=timedelta(hours=2))
    await console.record(Via.LIST, "evt_3", ago=timedelta(hours=1))
    await console.record(Via.WEBHOOK, "odd/key", source="other", ago=timedelta(minutes=1))
    await change(console, "evt_1", object_key="in_1", livemode=True, type="charge.failed")
    await change(console, "evt_2", object_key="in_1", object_version=7)
    async with listen() as client:
        assert await keys(client) == ["odd/key", "evt_3", "evt_2", "evt_1"]
        assert await keys(client, source="acme") == ["evt_3", "evt_2", "evt_1"]
        assert await keys(client, id="evt_3") == ["evt_3"]
        assert await keys(client, id="in_1") == await keys(client, object="in_1") == ["evt_2", "evt_1"]
        assert await keys(client, prefix="evt_") == ["evt_3", "evt_2", "evt_1"]
        assert await keys(client, type="charge.*") == ["evt_1"]
        assert await keys(client, type="charge.failed,nothing") == ["evt_1"]
        assert await keys(client, via="list") == ["evt_3"]
        assert await keys(client, via="both") == []
        assert await keys(client, mode="live") == ["evt_1"]
        assert await keys(client, state="pending") == ["odd/key", "evt_3", "evt_2", "evt_1"]
        assert await keys(client, state="none") == []
        assert await keys(client, since="90m") == ["odd/key", "evt_3"]
        assert await keys(client, since="3h", until="90m") == ["evt_2", "evt_1"]
        (missed,) = (await client.get("/api/v1/missed")).json()["items"]
        assert (missed["key"], missed["missed"]) == ("evt_3", "unexplained")


async def test_a_cursor_goes_through_all_events_once(console: Any, listen: Any) -> None:
    await console.add_source("other")
    for minutes in range(6):
        for name in ("acme", "other"):
            ago = timedelta(minutes=10 * (minutes // 2))
            await console.record(Via.WEBHOOK, f"{name}_{minutes}", source=name, ago=ago)
    async with listen() as client:
        whole, found, after = await keys(client, limit=100), list[str](), None
        while True:
            query = {"limit": 5} | ({"cursor": after} if after else {})
            page = (await client.get("/api/v1/events", params=query)).json()
            found += [each["key"] for each in page["items"]]
            after = page["next"]
            if after is None:
                break
        assert found == whole
        assert len(set(found)) == 12
        foreign = (await client.get("/api/v1/passes", params={"limit": 1})).json()
        assert foreign["next"] is None
        wrong = await client.get("/api/v1/events", params={"cursor": "bm90aGluZw"})
        assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")
        assert "next" in wrong.json()["detail"]


async def test_an_event_is_shown_with_everything_that_became_of_it(console: Any, listen: Any) -> None:
    shop = await console.add_destination("shop")
    console.use(sources=Sources([replace(console.source(), mask=("/email",))]))
    await console.record(Via.WEBHOOK, "a/b c", "evt_2")
    stored = b'{"email": "ann@example.com", "amount": 5}'
    await console.context.runtime.write(
        lambda c: c.execute(update(PAYLOAD).values(body=stored, headers='{"t": "1"}')).rowcount
    )
    await console.rows(ATTEMPT, destination_id=shop, event_seq=1, at_us=5, duration_us=1500, outcome="consumer_5xx")
    async with listen() as client:
        answer = await client.get(f"/api/v1/events/acme/{quote('a/b c', safe='')}")
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert shown["event"]["key"] == "a/b c"
        assert shown["payload"]["json"] == {"email": "***", "amount": 5}
        assert shown["payload"]["headers"] == {"t": "1"}
        assert shown["payload"]["masked"] == ["/email"]
        assert shown["consumer_id"].startswith("gapless_")
        (delivery,) = shown["deliveries"]
        assert (delivery["state"], delivery["attempts"][0]["duration_s"]) == ("pending", 0.0015)
        for path in ("acme/nothing", "nothing/evt_2", "acme/%ff", "acme/%00"):
            none = await client.get(f"/api/v1/events/{path}")
            assert (none.status_code, none.json()["status"]) == (404, 404), path


async def test_missing_passes_and_intervals_are_listed(console: Any, listen: Any) -> None:
    stream = await console.stream_id()
    at = to_us(console.now[0])
    row = {
        "source_id": console.source().id, "stream_id": stream, "type": "x", "occurred_us": at, "found_us": at,
        "reason": "detail", "next_attempt_us": at, "expected": True, "cause": "refused",
    }  # fmt: skip
    for state in ("open", "recovered"):
        await console.rows(MISSING, **row, key=state, state=state)
    await console.rows(UNRECOVERABLE, stream_id=stream, start_us=1, end_us=2, reason="history", recorded_us=at)
    async with listen() as client:
        open_ = (await client.get("/api/v1/missing?state=open")).json()["items"]
        assert [(each["key"], each["missed"]) for each in open_] == [("open", "refused")]
        assert len((await client.get("/api/v1/missing")).json()["items"]) == 2
        (interval,) = (await client.get("/api/v1/unrecoverable?acknowledged=false")).json()["items"]
        assert interval["acknowledged"] is None
        assert (await client.get("/api/v1/unrecoverable?acknowledged=true")).json()["items"] == []
        made = await client.post(
            "/api/v1/operations/source.pass", json={"source": "acme", "since": "2026-11-19T00:00:00Z"}, headers=RUN
        )
        assert made.status_code == 200, made.text
        (one,) = (await client.get("/api/v1/passes?open=true")).json()["items"]
        detail = (await client.get(f"/api/v1/passes/{one['id']}")).json()
        assert (detail["item"]["kind"], len(detail["slices"])) == ("demand", one["slices"])
        assert (await client.get("/api/v1/passes/77")).status_code == 404
        hours = (await client.get("/api/v1/sources/acme/hours?hours=2")).json()
        assert [each["missing"] for each in hours["items"]] == [0, 1]
        assert hours["proven_until"] is None


async def test_quarantine_shows_why_and_hides_nothing_needed(console: Any, listen: Any) -> None:
    await console.rows(
        QUARANTINE, source_id=console.source().id, received_us=5, reason="signature", detail="no signature",
        headers='[["stripe-signature", "t=1"]]', body=b'{"id": "evt_9"}', claims='["evt_9"]',
    )  # fmt: skip
    async with listen() as client:
        (entry,) = (await client.get("/api/v1/quarantine?source=acme&reason=signature")).json()["items"]
        assert (entry["claims"], entry["is_whole"]) == (["evt_9"], True)
        shown = (await client.get(f"/api/v1/quarantine/{entry['id']}")).json()
        assert (shown["json"], shown["headers"]) == ({"id": "evt_9"}, [["stripe-signature", "t=1"]])
        assert (await client.get("/api/v1/quarantine?reason=stale")).json()["items"] == []
        assert (await client.get("/api/v1/quarantine/999")).status_code == 404


async def test_dead_letters_come_a_page_at_a_time(console: Any, listen: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, *(f"evt_{n}" for n in range(5)))
    await console.context.runtime.write(
        lambda c: c.execute(update(DELIVERY).values(state="dead", reason="consumer_4xx")).rowcount
    )
    async with listen() as client:
        first = (await client.get("/api/v1/dead-letters?limit=3&destination=shop")).json()
        second = (await client.get("/api/v1/dead-letters", params={"limit": 3, "cursor": first["next"]})).json()
        assert [each["key"] for each in first["items"] + second["items"]] == [f"evt_{n}" for n in range(5)]
        assert second["next"] is None
        assert (await client.get("/api/v1/held")).json()["items"] == []
        done = await client.post("/api/v1/operations/dead.requeue", json={"note": "mended"}, headers=RUN)
        assert done.json() == {"requeued": 5}
        (row, *_) = (await client.get("/api/v1/audit-log?action=dead.requeue")).json()["items"]
        assert (row["reason"], row["result"]) == ("mended", 5)


async def test_a_limited_token_sees_its_own_sources_only(console: Any, listen: Any) -> None:
    await console.add_source("other")
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1")
    await console.record(Via.WEBHOOK, "evt_2", source="other")
    limited = await token(console, "ann", "viewer", sources=["acme"])
    async with listen(access=WIDE) as client:
        client.headers.update(limited)
        assert await keys(client) == ["evt_1"]
        shown = (await client.get("/api/v1/events/acme/evt_1")).json()
        assert shown["deliveries"] is shown["event"]["deliveries"] is None
        assert (await client.get("/api/v1/events/other/evt_2")).status_code == 404
        for path in ("events?source=other", "destinations", "dead-letters?source=other", "audit-log", "tokens"):
            assert (await client.get(f"/api/v1/{path}")).status_code == 403, path
        assert (await client.get("/api/v1/sources/other/hours")).status_code == 404
        assert [each["name"] for each in (await client.get("/api/v1/sources")).json()["items"]] == ["acme"]


async def test_no_action_without_its_role(console: Any, listen: Any) -> None:
    tokens = {role: await token(console, role, role) for role in ("viewer", "metrics", "operator")}
    document = "/api/v1/openapi.json"
    async with listen(access=WIDE) as client:
        assert (await client.get(document)).status_code == 401
        made = (await client.get(document, headers=tokens["viewer"])).json()
        actions = [path for path, item in made["paths"].items() if "post" in item]
        assert len(actions) > 15
        for path in actions:
            statuses = [
                (await client.post(path, json={}, headers=headers)).status_code
                for headers in ({}, tokens["viewer"], tokens["metrics"])
            ]
            assert statuses == [401, 403, 403], path
            allowed = (await client.post(path, content=b"", headers=tokens["operator"])).status_code
            assert allowed == 415, path
        refused = await client.post(
            "/api/v1/operations/token.revoke", json={"name": "viewer"}, headers=tokens["operator"]
        )
        assert refused.status_code == 403
        assert (await client.get("/api/v1/events", headers=tokens["metrics"])).status_code == 403


async def test_a_repeated_request_with_its_key_does_nothing_twice(console: Any, listen: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1")
    path, body = "/api/v1/operations/source.pass", {"source": "acme", "since": "2026-11-19T00:00:00Z"}
    key = {**RUN, "idempotency-key": "k1"}
    async with listen() as client:
        first = await client.post(path, json=body, headers=key)
        again = await client.post(path, json=body, headers=key)
        assert first.status_code == again.status_code == 200, again.text
        assert first.json()["passes"] == again.json()["passes"]
        assert len((await client.get("/api/v1/passes")).json()["items"]) == 1
        other = await client.post(path, json={"source": "acme"}, headers=key)
        assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
        refused = {**RUN, "idempotency-key": "k2"}
        assert (await client.post(path, json={"source": "none"}, headers=refused)).status_code == 400
        assert (await client.post(path, json=body, headers=refused)).status_code == 200


async def test_a_token_is_not_kept_for_a_repeated_request(console: Any, listen: Any) -> None:
    """The ledger has digests of tokens only; who asks again makes another."""
    path, key = "/api/v1/operations/token.create", {**RUN, "idempotency-key": "k1"}
    body = {"name": "new", "role": "viewer", "expires": None}
    async with listen() as client:
        first = await client.post(path, json=body, headers=key)
        assert (first.status_code, first.json()["token"].startswith("gapless_")) == (200, True)
        again = await client.post(path, json=body, headers=key)
        assert (again.status_code, "shown once" in again.json()["detail"]) == (409, True)
    kept = await console.context.read(lambda connection: connection.execute(select(PERFORMED.c.result)).scalars().all())
    assert kept == [None]


async def test_what_is_wrong_with_a_request_is_said_in_its_problem(listen: Any) -> None:
    async with listen() as client:
        for path, word in (
            ("events?since=tomorrow", "since"), ("events?since=2026-99-01", "since"), ("events?limit=0", "limit"),
            ("events?via=pigeon", "via"), ("passes?limit=x", "limit"), ("sources/acme/hours?hours=9999", "hours"),
            ("events?id=%00", "id"), ("events?source=%00", "source"), ("passes?source=%00", "source"),
        ):  # fmt: skip
            answer = await client.get(f"/api/v1/{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), path
            assert word in answer.json()["detail"], answer.text
        assert (await client.get("/api/v1/nothing")).headers["content-type"] == "application/problem+json"
        for args in ({"keys": ["a\0b"]}, {"reason": "\0"}):
            assert (await client.post("/api/v1/operations/dead.requeue", json=args, headers=RUN)).status_code == 400
        wrong = await client.post("/api/v1/operations/pass.cancel", json={"ids": "x"}, headers=RUN)
        assert wrong.status_code == 400
        assert "ids" in wrong.json()["detail"]


async def test_a_source_without_a_list_is_not_proven(console: Any, listen: Any) -> None:
    await console.add_source("push", mode=Mode.WEBHOOK)
    async with listen() as client:
        shown = (await client.get("/api/v1/sources/push")).json()
        assert shown["facts"]["blind"]
        hours = (await client.get("/api/v1/sources/push/hours")).json()
        assert hours["proven_until"] is None
        assert not any(each["is_proven"] for each in hours["items"])
