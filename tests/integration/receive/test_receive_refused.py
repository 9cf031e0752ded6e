"""What is refused, what is kept of it, and how it comes out of quarantine again."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gapless.ledger import quarantine as ledger
from gapless.ledger.tables import EVENT, QUARANTINE
from gapless.receive.quarantine import Released, StillRefused, release_webhook
from gapless.settings import QuarantineSettings, Settings
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.standard_signature import sign
from gapless_reconcilers.providers.standard_webhooks import StandardWebhooks, StandardWebhooksOptions
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio


def knows(setup: Any, *secrets: str) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=tuple(Secret(value) for value in secrets), livemode=False
    )
    setup.receiver.runtime.sources.change("acme", provider=Stripe(options))


async def release_one(setup: Any, quarantine_id: int) -> Released | StillRefused:
    receiver = setup.receiver
    return await release_webhook(
        quarantine_id,
        runtime=receiver.runtime,
        stream_ids=receiver.stream_ids,
        evidence=receiver.evidence,
    )


async def only_entry(setup: Any) -> ledger.QuarantineEntry:
    await setup.settled()
    entries: list[ledger.QuarantineEntry] = await setup.store.read(ledger.entries)
    assert len(entries) == 1
    return entries[0]


async def test_a_forged_webhook_is_answered_401_and_quarantined(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        answer = await setup.post(body, secret="whsec_guess")
        assert answer.status_code == 401
        assert answer.json()["reason"] == "signature"
        assert await setup.events() == {}
        entry = await only_entry(setup)
        assert (entry.reason, entry.released_us) == ("signature", None)
        assert "no v1 signature" in entry.detail
        assert setup.counted("refused_total", source="acme", reason="signature") == 1
        assert setup.counted("webhooks_total", source="acme", outcome="refused") == 1


async def test_a_webhook_without_a_signature_is_answered_401_and_leaves_no_row(serve: Any) -> None:
    async with serve() as setup:
        answer = await setup.client.post("/webhooks/acme", content=setup.event("evt_1"))
        assert answer.status_code == 401
        assert await setup.quarantined() == []
        assert setup.counted("refused_total", source="acme", reason="no_signature") == 1


async def test_a_flood_of_forgeries_leaves_a_bounded_number_of_rows(serve: Any) -> None:
    async with serve(settings=Settings(quarantine=QuarantineSettings(per_minute=12))) as setup:
        forged = (setup.post(setup.event(f"evt_{n}"), secret="whsec_guess") for n in range(120))
        genuine = [setup.post(setup.event(f"evt_good_{n}")) for n in range(20)]
        answers = await asyncio.gather(*forged, *genuine)
        assert [answer.status_code for answer in answers] == [401] * 120 + [200] * 20
        assert len(await setup.quarantined()) <= 12
        kept = setup.counted("quarantined_total", source="acme", outcome="kept")
        dropped = setup.counted("quarantined_total", source="acme", outcome="dropped")
        assert kept + dropped == 120


async def test_a_flood_of_one_reason_does_not_displace_another(serve: Any) -> None:
    async with serve(settings=Settings(quarantine=QuarantineSettings(max_rows=10, per_minute=1000))) as setup:
        await setup.client.post("/webhooks/acme", content=b"{}", headers={"Stripe-Signature": "rubbish"})
        for n in range(25):
            await setup.post(setup.event(f"evt_{n}"), secret="whsec_guess")
            await setup.settled()
        assert sorted(await setup.quarantined()) == ["bad_header"] + ["signature"] * 9


async def test_a_webhook_of_svix_is_kept_and_released_by_its_own_headers(serve: Any) -> None:
    def known(secret: str) -> StandardWebhooks:
        return StandardWebhooks(StandardWebhooksOptions(secret=(Secret(secret),)))

    async with serve() as setup:
        theirs = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        setup.receiver.runtime.sources.change("acme", provider=known("whsec_dGhlIG9uZSBiZWZvcmUgdGhpcyBvbmU="))
        signed = sign(Secret(theirs), "msg_1", b'{"type":"a.b"}', setup.now[0])
        assert signed is not None
        headers = {name.replace("webhook-", "svix-"): value for name, value in signed.items()}
        answer = await setup.client.post("/webhooks/acme", content=b'{"type":"a.b"}', headers=headers)
        assert answer.status_code == 401
        entry = await only_entry(setup)
        setup.receiver.runtime.sources.change("acme", provider=known(theirs))
        assert isinstance(await release_one(setup, entry.id), Released)
        assert await setup.events() == {"msg_1": 1}


async def test_a_released_webhook_becomes_an_event_once_the_secret_is_mended(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        await setup.post(body, secret="whsec_forgotten")
        entry = await only_entry(setup)
        refused = await release_one(setup, entry.id)
        assert isinstance(refused, StillRefused)
        assert refused.reason == "signature"
        knows(setup, "whsec_forgotten")
        assert await release_one(setup, entry.id) == Released(new=1)
        assert await setup.events() == {"evt_1": 1}
        assert (await only_entry(setup)).released_us is not None
        again = await release_one(setup, entry.id)
        assert isinstance(again, StillRefused)
        assert again.reason == "released"
        row = await setup.store.read(lambda c: c.execute(select(EVENT.c.via, EVENT.c.payload_id)).one())
        assert row.via == "webhook"
        assert row.payload_id is not None


async def test_a_release_judges_the_signature_as_of_when_it_was_received(serve: Any) -> None:
    async with serve() as setup:
        await setup.post(setup.event("evt_1"), secret="whsec_forgotten")
        entry = await only_entry(setup)
        setup.now[0] += timedelta(days=2)
        knows(setup, "whsec_forgotten")
        assert await release_one(setup, entry.id) == Released(new=1)


async def test_a_release_of_what_came_by_another_way_adds_nothing(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        await setup.post(body, secret="whsec_forgotten")
        entry = await only_entry(setup)
        knows(setup, "whsec_forgotten")
        await setup.post(body, secret="whsec_forgotten")
        assert await release_one(setup, entry.id) == Released(new=0)
        assert await setup.events() == {"evt_1": 2}


async def test_releasing_what_is_not_there_says_so(serve: Any) -> None:
    async with serve() as setup:
        answer = await release_one(setup, 4711)
        assert isinstance(answer, StillRefused)
        assert "4711" in answer.detail


HOSTILE = [
    ([b"t=1,v1=00", b"t=1,v1=00"], 400, "duplicate_header"),
    ([b"v1"], 401, "bad_header"),
    ([b"t=" + b"9" * 5000 + b",v1=00"], 401, "bad_header"),
    ([b"t=1,v1=\xff\xfe"], 401, "signature"),
]


async def test_hostile_headers_are_refused_with_the_reason(serve: Any) -> None:
    async with serve() as setup:
        for values, status, reason in HOSTILE:
            headers = [(b"Stripe-Signature", value) for value in values]
            answer = await setup.client.post("/webhooks/acme", content=b"{}", headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert sorted(await setup.quarantined()) == sorted(reason for _, _, reason in HOSTILE)


RUBBISH = {
    "empty": b"",
    "cut": b"{",
    "list": b"[]",
    "null": b"null",
    "not UTF-8": b"\xff\xfe",
    "NUL": b'{"id":"a\\u0000b"}',
    "deep list": b"[" * 200_000,
    "deep object": b'{"id":' * 100_000,
    "number": b'{"id": 1e999999}',
}


async def test_signed_rubbish_is_a_400(serve: Any) -> None:
    async with serve() as setup:
        for name, body in RUBBISH.items():
            answer = await setup.post(body)
            assert (name, answer.status_code, answer.json()["reason"]) == (name, 400, "malformed")


async def test_a_signed_event_that_the_ledger_could_not_hold_is_a_400(serve: Any) -> None:
    async with serve() as setup:
        for changes in ({"id": "a\0b"}, {"id": "x" * 513}, {"id": ""}, {"created": 1}, {"type": ""}):
            answer = await setup.post(setup.event("evt_1", **changes))
            assert answer.status_code == 400
        broken = setup.event("evt_1").replace(b"evt_1", b"\\ud800")
        assert (await setup.post(broken)).status_code == 400
        assert await setup.events() == {}


class Crashing(Stripe):
    """A provider with a bug."""

    def read_webhook(self, request: Any, now: Any, evidence: Any = None) -> Any:  # noqa: ARG002 - the contract's names
        raise KeyError(request.body)


async def test_a_provider_that_crashes_is_a_400_and_its_webhook_is_kept(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Crashing(StripeOptions(api_key=Secret("rk_test_1"), livemode=False))
    async with serve(provider=provider) as setup:
        answers = [await setup.post(setup.event(f"evt_secret_{n}")) for n in range(30)]
        assert {(answer.status_code, answer.json()["reason"]) for answer in answers} == {(400, "internal")}
        assert set(await setup.quarantined()) == {"internal"}
        bugs = [record for record in caplog.records if record.message == "provider_bug"]
        assert 0 < len(bugs) <= 10
        assert bugs[0].exc_info is not None
        row = await setup.store.read(lambda c: c.execute(select(QUARANTINE.c.detail)).scalars().first())
        assert "evt_secret" not in row


async def test_a_quarantine_of_size_zero_keeps_nothing(serve: Any) -> None:
    async with serve(settings=Settings(quarantine=QuarantineSettings(max_rows=0))) as setup:
        answer: httpx.Response = await setup.post(setup.event("evt_1"), secret="whsec_guess")
        assert answer.status_code == 401
        assert await setup.quarantined() == []


async def test_the_bytes_of_the_quarantine_are_bounded_too(serve: Any) -> None:
    async with serve(settings=Settings(quarantine=QuarantineSettings(max_bytes=40_000, per_minute=1000))) as setup:
        for n in range(20):
            await setup.post(setup.event(f"evt_{n}", filler="x" * 5_000), secret="whsec_guess")
            await setup.settled()
        await setup.post(setup.event("evt_big", filler="x" * 20_000), secret="whsec_guess")
        await setup.settled()
        size = await setup.store.read(
            lambda c: c.execute(select(func.sum(func.length(QUARANTINE.c.body)))).scalar_one()
        )
        assert 30_000 < size <= 40_000


async def test_the_log_of_refusals_is_bounded_and_holds_no_body(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gapless")
    async with serve() as setup:
        for n in range(40):
            await setup.post(setup.event(f"evt_{n}", filler="private"), secret="whsec_guess")
        lines = [record for record in caplog.records if record.message == "webhook_refused"]
        assert 0 < len(lines) <= 10
        assert "private" not in json.dumps([vars(line) for line in lines], default=str)
