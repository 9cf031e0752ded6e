"""The private listener over real HTTP: probes, access, status, the page, operations."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ledgers import run_sql
from sqlalchemy import select
from sqlalchemy.engine import make_url

from gapless.console.auth import Access
from gapless.domain import Sources, TypePatterns, Via
from gapless.ledger.engine import SqliteStore, Store
from gapless.ledger.tables import EVENT
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
HOSTILE = "<script>alert(1)</script>\"'&"
RUN = {"authorization": "Bearer run-token-of-this-process"}
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("long-token"))


async def test_probes_check_the_writer_and_the_schema(console: Any, listen: Any) -> None:
    current = [True]
    async with listen(schema_is_current=lambda _: current[0]) as client:
        assert (await client.get("/livez")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ok\n"
        current[0] = False
        behind = await client.get("/readyz")
        assert behind.status_code == 503
        assert "gapless db upgrade" in behind.text
        console.context.runtime.writer.close()
        for _ in range(200):
            if not console.context.runtime.writer.is_alive:
                break
            await client.get("/livez")
        assert (await client.get("/livez")).status_code == 503


async def test_readyz_and_status_tell_of_a_store_that_takes_no_writes(
    console: Any, listen: Any, store: Store, store_url: str
) -> None:
    """Reads work meanwhile: /readyz was 200 for as long as this lasted."""
    write = console.context.runtime.write
    async with listen() as client:
        assert (await client.get("/readyz")).status_code == 200
        if isinstance(store, SqliteStore):
            store.path.rename(aside := store.path.with_name("aside.db"))
            kind = "store_replaced"
        else:
            await write(lambda c: c.exec_driver_sql("SET default_transaction_read_only = on"))
            database = make_url(store_url).database
            await run_sql(store_url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
            kind = "store_read_only"
        for _ in range(2):
            ready = await client.get("/readyz")
            assert (ready.status_code, "store" in ready.text) == (503, True)
        told = (await client.get("/api/status")).json()["troubles"][0]
        assert (told["kind"], told["severity"]) == (kind, "trouble")
        assert "gapless_ledger_writable 0.0" in (await client.get("/metrics")).text
        if isinstance(store, SqliteStore):
            aside.rename(store.path)
        else:
            other = make_url(store_url).set(database="postgres").render_as_string(hide_password=False)
            await run_sql(other, f"ALTER DATABASE {database} RESET default_transaction_read_only")
        assert (await client.get("/readyz")).status_code == 200
        assert kind not in {each["kind"] for each in (await client.get("/api/status")).json()["troubles"]}
        assert "gapless_ledger_writable 1.0" in (await client.get("/metrics")).text


async def test_on_loopback_only_operations_need_the_token(listen: Any) -> None:
    async with listen() as client:
        for path in ("/", "/style.css", "/api/status", "/metrics"):
            assert (await client.get(path)).status_code == 200, path
            rebound = await client.get(path, headers={"host": "rebound.example"})
            assert rebound.status_code == 403, path
        refused = await client.post("/api/operations/pass.status", json={"ids": []})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert (await client.post("/api/operations/pass.status", json={"ids": []}, headers=RUN)).status_code == 200


async def test_bound_wider_all_but_probes_and_metrics_need_the_token(listen: Any) -> None:
    async with listen(access=WIDE) as client:
        for path, status in (("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/", 401), ("/api/status", 401)):
            assert (await client.get(path)).status_code == status, path
            assert (await client.get(path, auth=("anybody", "long-token"))).status_code == 200, path
        assert (await client.post("/api/operations/import", json={})).status_code == 401


async def test_an_operation_takes_only_json_objects(console: Any, listen: Any) -> None:
    async with listen() as client:
        path = "/api/operations/import"
        done = await client.post(path, json={"source": "acme", "events": [{"key": "evt_1"}]}, headers=RUN)
        assert (done.status_code, done.json()) == (200, {"new": 1, "known": 0})
        assert await console.sql(select(EVENT.c.key)) == "evt_1"
        form = {**RUN, "content-type": "text/plain"}
        assert (await client.post(path, content="{}", headers=form)).status_code == 415
        typed = {**RUN, "content-type": "application/json"}
        for body in ("[]", "{", '{"source": 5}'):
            answer = await client.post(path, content=body, headers=typed)
            assert answer.status_code == 400
            assert answer.json()["error"]
        assert (await client.post("/api/operations/nothing", json={}, headers=RUN)).status_code == 400
        from_afar = {**RUN, "origin": "http://evil.example"}
        assert (await client.post(path, json={}, headers=from_afar)).status_code == 403


async def test_status_says_null_for_what_is_not_known(console: Any, listen: Any) -> None:
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1")
    async with listen() as client:
        status = (await client.get("/api/status")).json()
    (source,), (destination,) = status["sources"], status["destinations"]
    assert source["gaps"] == {"1h": None, "24h": None, "7d": None}
    assert source["list"]["watermark"] is None
    assert source["list"]["grant"] is None
    assert source["subscription"] == {"healthy": None, "reason": None}
    assert source["types_origin"] == "assumed"
    assert source["losses"]["missed"] == 0
    assert destination["backlog"] == {"pending": 1, "waiting": 0, "held": 0, "parked": 0, "dead": 0}
    assert status["process"]["uptime_s"] == 7200
    assert status["process"]["roles"] == ["console", "deliver", "receive", "reconcile"]


async def test_status_says_up_to_when_a_source_is_complete(console: Any, listen: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1", "evt_2", "evt_3")
    await console.record(Via.LIST, "evt_4")
    await console.listed()
    async with listen() as client:
        (source,) = (await client.get("/api/status")).json()["sources"]
    assert source["list"]["complete_up_to"] == "2026-11-20T12:25:00Z"
    assert source["gaps"]["1h"] == {"rate": 0.25, "missed": 1, "expected": 4}
    assert source["losses"]["recovered"] == 1
    assert source["streams"][0]["last_outcome"] == "clean"


async def test_the_page_tells_at_a_glance_and_runs_no_script(console: Any, listen: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1", "evt_2", "evt_3")
    await console.record(Via.LIST, "evt_4")
    await console.listed()
    async with listen() as client:
        page = await client.get("/")
    assert "2026-11-20 12:25:00 UTC" in page.text
    assert "<dt>Missed</dt><dd>1</dd>" in page.text
    assert "<dt>Recovered</dt><dd>1</dd>" in page.text
    assert "25.000" in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert " style=" not in page.text


async def test_the_page_says_unknown_where_nothing_was_compared(listen: Any) -> None:
    async with listen() as client:
        page = (await client.get("/")).text
    assert "Not compared with the provider" in page
    assert page.count('<span class="unknown">unknown</span>') >= 4


async def test_hostile_names_and_reasons_are_escaped(console: Any, listen: Any) -> None:
    known = console.source()
    hostile = replace(known, name=HOSTILE, types=TypePatterns([HOSTILE]))
    console.use(sources=Sources([known, hostile]))
    await console.add_destination(HOSTILE)
    await console.listed(last_outcome="options_invalid", parked_reason=HOSTILE)
    async with listen(version=HOSTILE) as client:
        page = (await client.get("/")).text
        scraped = (await client.get("/metrics")).text
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;") >= 4
    assert "<script" not in page
    assert 'destination="<script>alert(1)</script>\\"' in scraped


async def test_a_source_that_needs_a_person_is_shown_as_such(console: Any, listen: Any) -> None:
    await console.listed(ago=timedelta(hours=3), last_outcome="credentials_rejected", parked_reason="401: revoked")
    async with listen() as client:
        page = (await client.get("/")).text
    assert "Look here" in page
    assert "Not read: 401: revoked" in page


async def test_a_handler_reports_with_a_token_that_opens_nothing_else(console: Any, listen: Any) -> None:
    await console.add_destination("shop")
    access = replace(WIDE, consumer_token=lambda: Secret("consumer-token"))
    token, body = (
        {"authorization": "Bearer consumer-token"},
        {"destination": "shop", "source": "acme", "keys": ["evt_1"]},
    )
    async with listen(access=access) as client:
        assert (await client.post("/api/v1/receipts", json=body)).status_code == 401
        taken = await client.post("/api/v1/receipts", json=body, headers=token)
        assert (taken.status_code, taken.json()) == (200, {"new": 1, "known": 0, "settled": 0})
        unknown = await client.post("/api/v1/receipts", json={**body, "destination": "nobody"}, headers=token)
        assert (unknown.status_code, "is not known" in unknown.json()["error"]) == (400, True)
        assert (await client.post("/api/operations/receipts", json=body, headers=token)).status_code == 401
        assert (await client.get("/api/status", headers=token)).status_code == 401
