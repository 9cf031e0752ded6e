"""The answers of the public listener to providers and to strangers."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gapless.daemon import maintenance
from gapless.domain import to_us
from gapless.ledger.tables import EVENT, PAYLOAD, SOURCE, STREAM
from gapless.settings import RetentionSettings
from gapless_reconcilers.kit.contract import RecordedEvent, Secret, WebhookMessage
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.suite.scenario import load_scenario, make_request
from gapless_reconcilers.testing.suite.scenario import read as scenario_read

pytestmark = pytest.mark.anyio
FIXTURES = Path(__file__).parents[2] / "fixtures"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


async def test_a_webhook_is_recorded_and_its_repeat_is_absorbed(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        first, again = await setup.post(body), await setup.post(body)
        assert (first.status_code, again.status_code) == (200, 200)
        assert await setup.events() == {"evt_1": 2}
        assert setup.counted("webhooks_total", source="acme", outcome="accepted") == 1
        assert setup.counted("webhooks_total", source="acme", outcome="duplicate") == 1
        assert setup.counted("webhook_seconds_count", source="acme") == 2
        assert setup.counted("record_delay_seconds_sum", source="acme", via="webhook") == 2


async def test_body_and_signature_headers_are_kept_as_they_came(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1", note="naïve €") + b"\n "
        await setup.post(body)
        row = await setup.store.read(
            lambda c: c.execute(
                select(PAYLOAD.c.body, PAYLOAD.c.headers, EVENT).join(EVENT, EVENT.c.payload_id == PAYLOAD.c.id)
            ).one()
        )
        assert row.body == body
        assert json.loads(row.headers) == {"stripe-signature": setup.signature(body)["Stripe-Signature"]}
        assert (row.via, row.expected, row.type, row.object_key) == ("webhook", True, "invoice.paid", "in_1")


ODD = {"surrogate": rb'"x\ud83d"', "number": b"1e999999", "deep": b"[" * 50_000 + b"]" * 50_000, "encoding": b'"\xff"'}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_odd_fields_that_nobody_reads_are_stored_as_they_came(serve: Any, odd: bytes) -> None:
    async with serve() as setup:
        body = setup.event("evt_1", note="?").replace(b'"?"', odd)
        first, again = await setup.post(body), await setup.post(body)
        assert (first.status_code, again.status_code) == (200, 200)
        assert await setup.events() == {"evt_1": 2}
        assert await setup.store.read(lambda c: c.execute(select(PAYLOAD.c.body)).scalars().all()) == [body]


@pytest.mark.parametrize("id_", [rb'"evt_\ud83d"', b'"evt_\xff"', rb'"evt_1","note":"\ud83d","id":"evt_1"'])
async def test_an_odd_id_is_refused_and_never_replaced(serve: Any, id_: bytes) -> None:
    async with serve() as setup:
        assert (await setup.post(setup.event("?").replace(b'"?"', id_))).status_code == 400
        assert await setup.events() == {}


async def test_every_live_secret_is_tried(serve: Any) -> None:
    async with serve() as setup:
        answers = [await setup.post(setup.event(f"evt_{s}"), secret=s) for s in ("whsec_before", "whsec_after")]
        assert [answer.status_code for answer in answers] == [200, 200]


async def test_trap_hookaido_a_changed_secret_counts_from_the_next_request_on(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        assert (await setup.post(body, secret="whsec_newest")).status_code == 401
        options = StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_newest"),), livemode=False)
        setup.receiver.runtime.sources.change("acme", provider=Stripe(options))
        assert (await setup.post(body, secret="whsec_newest")).status_code == 200


async def test_a_connected_account_is_a_stream_of_its_own(serve: Any) -> None:
    async with serve() as setup:
        await setup.post(setup.event("evt_own"))
        await setup.post(setup.event("evt_1", account="acct_1"))
        await setup.post(setup.event("evt_2", account="acct_1"))
        query = select(EVENT.c.key, STREAM.c.name).join(STREAM, STREAM.c.id == EVENT.c.stream_id).order_by(EVENT.c.key)
        rows = await setup.store.read(lambda c: c.execute(query).all())
        assert [tuple(row) for row in rows] == [("evt_1", "acct_1"), ("evt_2", "acct_1"), ("evt_own", "")]


async def test_many_at_once_are_all_recorded_once(serve: Any) -> None:
    async with serve() as setup:
        bodies = [setup.event(f"evt_{n % 150}") for n in range(300)]
        answers = await asyncio.gather(*(setup.post(body) for body in bodies))
        assert {answer.status_code for answer in answers} == {200}
        assert await setup.events() == {f"evt_{n}": 2 for n in range(150)}
        accepted = setup.counted("webhooks_total", source="acme", outcome="accepted")
        duplicate = setup.counted("webhooks_total", source="acme", outcome="duplicate")
        assert (accepted, duplicate) == (150, 150)


async def test_an_unknown_event_type_is_stored_and_acknowledged(serve: Any) -> None:
    async with serve() as setup:
        assert (await setup.post(setup.event("evt_1", type="made.up.tomorrow"))).status_code == 200
        assert await setup.events() == {"evt_1": 1}


ELSEWHERE = [
    ("POST", "/", 404),
    ("POST", "/webhooks/", 404),
    ("POST", "/webhooks/other", 404),
    ("POST", "/webhooks/acme/more", 404),
    ("POST", "/webhooks/%00", 404),
    ("GET", "/schema", 404),
    ("GET", "/webhooks/acme", 405),
    ("PUT", "/webhooks/acme", 405),
    ("POST", "/healthz", 405),
    ("GET", "/healthz", 200),
    ("HEAD", "/healthz", 200),
]


async def test_nothing_else_is_there(serve: Any) -> None:
    async with serve() as setup:
        answers = [await setup.client.request(method, path) for method, path, _ in ELSEWHERE]
        assert [answer.status_code for answer in answers] == [status for _, _, status in ELSEWHERE]
        assert all(("allow" in answer.headers) == (answer.status_code == 405) for answer in answers)
        assert setup.counted("unrouted_total") == 6


async def test_a_websocket_request_is_answered_as_plain_http(serve: Any) -> None:
    async with serve() as setup:
        headers = {
            "upgrade": "websocket",
            "connection": "upgrade",
            "sec-websocket-key": "x" * 24,
            "sec-websocket-version": "13",
        }
        assert (await setup.client.get("/webhooks/acme", headers=headers)).status_code == 405


async def test_an_invalid_host_header_is_a_4xx(serve: Any) -> None:
    async with serve() as setup:
        assert (await setup.client.post("/webhooks/acme", headers={"host": "a b"})).status_code == 400


async def test_a_retired_source_is_503_for_three_days_and_then_404(serve: Any) -> None:
    since_us = to_us(datetime(2026, 11, 20, 12, 0, tzinfo=UTC))

    async with serve(retired={"gone": since_us}) as setup:
        kept = await setup.client.post("/webhooks/gone")
        assert (kept.status_code, int(kept.headers["retry-after"]) > 0) == (503, True)
        setup.now[0] += timedelta(days=3)
        assert (await setup.client.post("/webhooks/gone")).status_code == 404
        assert setup.counted("unrouted_total") == 1


async def test_every_series_of_a_source_starts_at_zero(serve: Any) -> None:
    async with serve() as setup:
        sample = setup.receiver.runtime.metrics.registry.get_sample_value
        for outcome in ("accepted", "duplicate", "refused", "too_large", "cut", "unstorable", "unavailable"):
            assert sample("gapless_webhooks_total", {"source": "acme", "outcome": outcome}) == 0
        assert sample("gapless_refused_total", {"source": "acme", "reason": "signature"}) == 0
        assert sample("gapless_quarantined_total", {"source": "acme", "outcome": "dropped"}) == 0


async def test_a_paused_intake_answers_503_and_healthz_says_so(serve: Any) -> None:
    async with serve() as setup:
        setup.receiver.admission.pause("shutting down")
        answers: list[httpx.Response] = [
            await setup.post(setup.event("evt_1")),
            await setup.client.get("/healthz"),
        ]
        assert [(a.status_code, "retry-after" in a.headers) for a in answers] == [(503, True), (503, True)]


async def test_trap_hookaido_retention_deletes_a_little_at_a_time_and_webhooks_go_first(serve: Any) -> None:
    long_ago_us = to_us(datetime(2026, 1, 1, tzinfo=UTC))
    rows = [{"id": number, "body": b"{}", "headers": None, "stored_us": long_ago_us} for number in range(1, 20_001)]
    async with serve() as setup:
        await setup.store.write(lambda c: c.execute(PAYLOAD.insert(), rows))
        retention = RetentionSettings(payloads=timedelta(days=90), attempts=None, deliveries=None)
        pruning = asyncio.create_task(
            maintenance.prune_once(setup.receiver.runtime.writer, retention, [], setup.receiver.runtime.now_us)
        )
        meanwhile = 0
        for number in range(10):
            assert (await setup.post(setup.event(f"evt_{number}"))).status_code == 200
            meanwhile += not pruning.done()
        await pruning
        assert meanwhile  # each waits for a batch at most, never for the whole delete
        assert await setup.store.read(lambda c: c.execute(select(func.count()).select_from(PAYLOAD)).scalar()) == 10


async def test_when_a_source_was_last_heard_is_noted_with_the_heartbeat(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "BEAT_EVERY", timedelta(milliseconds=20))
    last = select(SOURCE.c.last_webhook_us)
    async with serve() as setup:
        beating = asyncio.create_task(maintenance.beat(setup.receiver.runtime, "me", receives=True))
        assert await setup.store.read(lambda c: c.execute(last).scalar()) is None
        assert (await setup.post(setup.event("evt_1"))).status_code == 200
        async with asyncio.timeout(60):
            while await setup.store.read(lambda c: c.execute(last).scalar()) != to_us(setup.now[0]):
                await asyncio.sleep(0.02)
        beating.cancel()


async def test_of_a_webhook_with_several_events_each_is_stored_and_delivered_by_itself(serve: Any) -> None:
    scenario = load_scenario(FIXTURES / "rest_list/gocardless")
    provider, target = scenario.provider(), "https://merchant.example/webhooks"
    async with serve(provider=provider) as setup:
        answer = await setup.client.post(
            "/webhooks/acme", content=scenario.webhook.body, headers=list(scenario.webhook.headers)
        )
        assert answer.status_code == 200
        query = select(EVENT.c.key, PAYLOAD.c.body).join(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
        stored = await setup.store.read(lambda c: {row.key: row.body for row in c.execute(query)})
        sent = {event.key: bytes(event.payload) for event in scenario_read(provider, scenario).events}
        assert stored == sent
        assert len(stored) == 2
        assert all(body in scenario.webhook.body for body in stored.values())
        envelope = PAYLOAD.alias("envelope")
        whole = select(envelope.c.body, envelope.c.headers).join(PAYLOAD, PAYLOAD.c.envelope_id == envelope.c.id)
        kept = set(await setup.store.read(lambda c: [tuple(row) for row in c.execute(whole)]))
        ((signed, headers),) = kept
        assert signed == scenario.webhook.body
        assert dict(scenario.webhook.headers)[b"webhook-signature"].decode() in headers
        for key, body in stored.items():
            recorded = RecordedEvent(key=key, type="a.b", occurred_at=NOW, stream="", payload=body, via="webhook")
            message = provider.render(recorded, target, Secret(scenario.signing_secret), NOW)
            assert isinstance(message, WebhookMessage)
            (again,) = scenario_read(provider, scenario, make_request(message.headers, message.body)).events
            assert (again.key, bytes(again.payload)) == (key, body)
