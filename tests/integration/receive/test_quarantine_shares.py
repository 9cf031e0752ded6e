"""Who may displace whom in the quarantine, what outlives a body, and what counts as purged unjudged."""

from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update

from gapless.client_address import sender_of
from gapless.daemon import maintenance
from gapless.domain import Cause, to_us
from gapless.ledger import missing, streams
from gapless.ledger import quarantine as ledger
from gapless.ledger.missing import Missing
from gapless.ledger.quarantine import Caps, QuarantinedWebhook
from gapless.ledger.tables import QUARANTINE, SOURCE
from gapless.receive.quarantine import Released, StillRefused, release_webhook
from gapless.receive.webhook import Refusal
from gapless.settings import QuarantineSettings, RetentionSettings, Settings
from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
STRANGER, VENDOR = "198.51.100.1", "203.0.113.1"
REFUSED = Refusal(reason="signature", detail="none that we know")
HUNDREDTH = Settings(quarantine=QuarantineSettings(max_bytes=640_000, per_minute=10_000))
"""A hundredth of the default bytes, for webhooks of a hundredth of their size."""


def with_secret(setup: Any, secret: str) -> None:
    options = StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret(secret),), livemode=False)
    setup.receiver.runtime.sources.change("acme", provider=Stripe(options))


async def keep(setup: Any, body: bytes, secret: str, sender: str) -> None:
    """Refuse a webhook as the endpoint does, and wait until it is kept."""
    headers = tuple((k.lower().encode(), v.encode()) for k, v in setup.signature(body, secret).items())
    request = WebhookRequest(headers=headers, body=body)
    received_us = to_us(setup.now[0])
    setup.receiver.quarantine.offer(setup.source, request, REFUSED, received_us, sender)
    await setup.settled()


async def released(setup: Any) -> int:
    """Release everything that verifies; return how many webhooks did."""
    receiver, count = setup.receiver, 0
    for entry in await setup.store.read(ledger.entries, limit=1000):
        outcome = await release_webhook(
            entry.id, runtime=receiver.runtime, stream_ids=receiver.stream_ids, evidence=receiver.evidence
        )
        count += isinstance(outcome, Released)
    return count


async def expired(setup: Any) -> int:
    count: int = await setup.store.read(lambda c: c.execute(select(SOURCE.c.quarantine_expired)).scalar_one())
    return count


@pytest.mark.parametrize("stranger", [STRANGER, VENDOR], ids=["another address", "the same address"])
async def test_eighty_three_large_forgeries_displace_no_webhook_of_a_rolled_secret(serve: Any, stranger: str) -> None:
    async with serve(settings=HUNDREDTH) as setup:
        for n in range(20):
            await keep(setup, setup.event(f"evt_genuine_{n:020}"), "whsec_rolled", VENDOR)
        for n in range(83):
            await keep(setup, setup.event(f"evt_forged_{n:020}", pad="x" * 10_000), "whsec_guess", stranger)
        sizes = await setup.store.read(ledger.shares, source_id=setup.source.id)
        assert sum(share.size_bytes for share in sizes) <= 640_000
        with_secret(setup, "whsec_rolled")
        assert await released(setup) == 20
        assert len(await setup.events()) == 20


async def test_a_flood_of_small_forgeries_leaves_the_oldest_the_newest_and_other_senders(serve: Any) -> None:
    async with serve(settings=Settings(quarantine=QuarantineSettings(max_rows=40, per_minute=10_000))) as setup:
        await keep(setup, setup.event("evt_first"), "whsec_guess", STRANGER)
        for n in range(10):
            await keep(setup, setup.event(f"evt_genuine_{n}"), "whsec_rolled", VENDOR)
        for n in range(60):
            await keep(setup, setup.event(f"evt_{n}"), "whsec_guess", STRANGER)
        rows = await setup.store.read(ledger.entries, limit=1000)
        whole = [row for row in rows if row.purged_us is None]
        keys = [key for row in whole for key in row.claims]
        assert len(whole) == 40
        assert {row.sender for row in whole} == {STRANGER, VENDOR}
        assert sum(row.sender == VENDOR for row in whole) == 10
        assert keys[0] == "evt_first"
        assert keys[-5:] == [f"evt_{n}" for n in range(55, 60)]


async def test_one_sender_has_half_of_what_is_kept_in_a_minute(serve: Any) -> None:
    async with serve(settings=Settings(quarantine=QuarantineSettings(per_minute=20))) as setup:
        for n in range(30):
            await keep(setup, setup.event(f"evt_{n}"), "whsec_guess", STRANGER)
        await keep(setup, setup.event("evt_genuine"), "whsec_rolled", VENDOR)
        rows = await setup.store.read(ledger.entries, limit=1000)
        assert [row.sender for row in rows] == [STRANGER] * 10 + [VENDOR]


async def test_one_sender_has_half_of_the_queue(serve: Any) -> None:
    async with serve(writes=False, settings=Settings(quarantine=QuarantineSettings(per_minute=10_000))) as setup:
        offer = partial(setup.receiver.quarantine.offer, setup.source)
        request = WebhookRequest(headers=((b"stripe-signature", b"t=1,v1=x"),), body=b"{}")
        for _ in range(100):
            offer(request, REFUSED, to_us(setup.now[0]), STRANGER)
        assert setup.counted("quarantined_total", source="acme", outcome="dropped") == 100 - 16
        offer(request, REFUSED, to_us(setup.now[0]), VENDOR)
        assert setup.counted("quarantined_total", source="acme", outcome="dropped") == 100 - 16


async def prune(setup: Any) -> None:
    never = RetentionSettings(payloads=None, attempts=None, deliveries=None, passes=None)
    writer, now_us = setup.receiver.runtime.writer, to_us(setup.now[0])
    await maintenance.prune_once(writer, never, [], now_us, refused=QuarantineSettings().max_age)


async def test_after_a_week_the_body_goes_and_key_and_cause_stay(serve: Any) -> None:
    async with serve() as setup:
        await keep(setup, setup.event("evt_old_and_hard_to_guess"), "whsec_rolled", VENDOR)
        setup.now[0] += timedelta(days=6)
        await keep(setup, setup.event("evt_new"), "whsec_rolled", VENDOR)
        setup.now[0] += timedelta(days=2)
        await prune(setup)
        old, new = await setup.store.read(ledger.entries)
        assert (old.claims, old.reason, old.size) == (("evt_old_and_hard_to_guess",), "signature", 2)
        assert (old.purged_us, new.purged_us) == (to_us(setup.now[0]), None)
        bodies = select(QUARANTINE.c.body).order_by(QUARANTINE.c.id)
        assert await setup.store.read(lambda c: c.execute(bodies).scalars().first()) == b""
        event = SimpleNamespace(key="evt_old_and_hard_to_guess", object_key=None, object_version=None)
        named = await setup.store.read(ledger.named_in, source_id=setup.source.id, events=[event], since_us=0)
        assert named == {"evt_old_and_hard_to_guess"}
        with_secret(setup, "whsec_rolled")
        receiver = setup.receiver
        outcome = await release_webhook(
            old.id, runtime=receiver.runtime, stream_ids=receiver.stream_ids, evidence=receiver.evidence
        )
        assert isinstance(outcome, StillRefused)
        assert outcome.reason == "purged"


async def test_what_may_be_genuine_and_is_purged_unjudged_counts_until_acknowledged(serve: Any) -> None:
    async with serve() as setup:
        await keep(setup, setup.event("evt_of_the_rolled_secret"), "whsec_rolled", VENDOR)
        setup.now[0] += timedelta(days=8)
        await prune(setup)
        assert await expired(setup) == 1
        assert await setup.store.write(ledger.acknowledge_expired, source_id=setup.source.id) == 1
        assert await expired(setup) == 0


async def test_forgeries_count_as_expired_only_if_a_list_has_shown_what_they_claim(serve: Any) -> None:
    async with serve() as setup:
        for key in ("evt_made_up", "evt_recorded", "evt_missing"):
            await keep(setup, setup.event(key), "whsec_guess", STRANGER)
        await keep(setup, b"no claim", "whsec_guess", STRANGER)
        assert (await setup.post(setup.event("evt_recorded"))).status_code == 200
        heard = update(SOURCE).values(last_webhook_us=to_us(setup.now[0] + timedelta(seconds=1)))
        await setup.store.write(lambda c: c.execute(heard))
        row = await missing_row(setup, "evt_missing")
        await setup.store.write(missing.add, slot=0, found=[row])
        setup.now[0] += timedelta(days=8)
        await prune(setup)
        assert await expired(setup) == 1


async def missing_row(setup: Any, key: str) -> Missing:
    stream_id = await setup.store.write(streams.ensure_stream, source_id=setup.source.id, name="")
    at_us = to_us(setup.now[0])
    return Missing(
        source_id=setup.source.id, stream_id=stream_id, key=key, type="invoice.paid", occurred_us=at_us,
        found_us=at_us, expected=True, cause=Cause.UNEXPLAINED, reason="detail",
    )  # fmt: skip


async def test_the_rows_that_outlive_their_bodies_are_bounded(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "TRACES", 5)
    async with serve() as setup:
        rows = [
            QuarantinedWebhook(
                source_id=setup.source.id, received_us=n, reason="signature", detail="", headers="[]", body=b"x"
            )
            for n in range(30)
        ]
        await setup.store.write(ledger.add, refused=rows, caps=Caps(rows=10, size_bytes=1 << 20))
        entries = await setup.store.read(ledger.entries)
        assert sum(entry.purged_us is None for entry in entries) == 10
        assert sum(entry.purged_us is not None for entry in entries) == 5


def test_a_sender_is_an_address_or_a_network_of_ipv6() -> None:
    def of(host: str | None) -> str:
        return sender_of({"client": None if host is None else (host, 1)})

    assert [of(host) for host in ("198.51.100.1", "::ffff:198.51.100.1", None, "unix")] == [STRANGER, STRANGER, "", ""]
    assert of("2001:db8::1") == of("2001:db8::ffff") == "2001:db8::/64"
