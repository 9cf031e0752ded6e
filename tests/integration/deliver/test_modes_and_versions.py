"""What a destination is owed by the vendor's mode, and what is held by the version of our endpoint."""

from typing import Any

import pytest

from gapless.domain import Via, system_clock
from gapless.ledger import sources
from gapless_reconcilers.kit.contract import Secret, Subscription
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
OLD = b'{"id":"evt_1","object":"event","api_version":"2020-08-27"}'


async def reads(setup: Any, version: str | None, *, healthy: bool = True) -> None:
    """The vendor shows our endpoint with that version."""
    seen = Subscription(healthy=healthy, reason="", types=("*",), api_version=version)
    await setup.writer.submit(lambda c: sources.note_subscription(c, setup.source.id, seen, system_clock()))


async def deliver(setup: Any, consumer: Any, via: Via = Via.LIST) -> str:
    """Record an event of the old version, and return what became of its delivery."""
    async with setup.delivering(setup.destination(setup.http(consumer.url, signature="provider"))):
        await setup.record(setup.sighting("evt_1", via, OLD))
        await setup.wait_for(lambda rows: {row.state for row in rows} <= {"held", "delivered"} and bool(rows))
    (row,) = await setup.deliveries()
    return str(row.reason or row.state)


async def test_a_list_of_another_version_than_the_endpoint_is_held(setup: Any, consumer: Any) -> None:
    await reads(setup, "2026-01-01")
    await reads(setup, None, healthy=False)  # it was switched off: its version stays known
    assert await deliver(setup, consumer) == "version_mismatch"
    assert consumer.got == []


@pytest.mark.parametrize("version", ["2020-08-27", None])
async def test_a_list_of_the_endpoints_version_is_sent(setup: Any, consumer: Any, version: str | None) -> None:
    await reads(setup, "2026-01-01")
    await reads(setup, version)  # None: it has the account's own, as the list has
    assert await deliver(setup, consumer) == "delivered"


async def test_a_webhook_is_not_held_by_its_version(setup: Any, consumer: Any) -> None:
    await reads(setup, "2026-01-01")
    assert await deliver(setup, consumer, Via.WEBHOOK) == "delivered"


async def test_the_version_of_the_options_comes_first(setup: Any, consumer: Any) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False, api_version="2020-08-27"
    )
    setup.source = setup.sources.change("acme", provider=Stripe(options))
    await reads(setup, "2026-01-01")
    assert await deliver(setup, consumer) == "delivered"


@pytest.mark.parametrize(("livemode", "mode"), [(False, "test"), (None, None)])
async def test_a_delivery_has_its_mode_as_a_header(
    setup: Any, consumer: Any, livemode: bool | None, mode: str | None
) -> None:
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1", livemode=livemode))
        await setup.until("delivered")
    assert consumer.got[0].headers.get("gapless-mode") == mode


async def test_an_event_of_the_other_mode_is_not_delivered(setup: Any, consumer: Any) -> None:
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_live", livemode=True), setup.sighting("evt_test", livemode=False))
        await setup.until("delivered")
    assert [got.headers["gapless-event-key"] for got in consumer.got] == ["evt_test"]  # the source is of test mode
