"""A handler with a webhook of its own says what it has processed, and gets what it lacks, however we learnt of it."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from gapless.deliver.routing import Destination
from gapless.domain import Via
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds

pytestmark = pytest.mark.anyio
DELAY_US = 3_600_000_000


def reporting(setup: Any, consumer: Any) -> Destination:
    """The handler's destination; it reports what it has processed."""
    made: Destination = setup.destination(setup.http(consumer.url), receipts=True, delay_us=DELAY_US)
    return made


async def do(setup: Any, name: str, args: Mapping[str, object]) -> dict[str, Any]:
    runtime = setup.runtime
    evidence = EvidenceFetcher(httpx.AsyncClient(), runtime.clock, runtime.metrics)
    context = OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer))
    return await perform(context, name, args)


async def receipt(setup: Any, *keys: str, destination: str = "app") -> dict[str, Any]:
    return await do(setup, "receipts", {"destination": destination, "source": "acme", "keys": keys})


def delivered(consumer: Any) -> list[str]:
    return sorted(got.headers["gapless-event-key"] for got in consumer.got)


async def test_what_the_handler_did_not_report_is_delivered_to_it(setup: Any, consumer: Any) -> None:
    """Our own endpoint was up while the handler was down: its events came by webhook, and it never got them."""
    async with setup.delivering(reporting(setup, consumer)) as dispatcher:
        await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2", Via.LIST), setup.sighting("evt_3"))
        assert await receipt(setup, "evt_3") == {"new": 1, "known": 0, "settled": 1}
        await setup.end_delays(dispatcher)
        await setup.until("delivered")
    assert delivered(consumer) == ["evt_1", "evt_2"]


async def test_a_receipt_may_come_before_the_event(setup: Any, consumer: Any) -> None:
    async with setup.delivering(reporting(setup, consumer)) as dispatcher:
        await receipt(setup, "evt_1")
        await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))
        await setup.end_delays(dispatcher)
        await setup.until("delivered")
    assert delivered(consumer) == ["evt_2"]


async def test_our_own_webhook_says_nothing_about_the_handler(setup: Any, consumer: Any) -> None:
    async with setup.delivering(reporting(setup, consumer)) as dispatcher:
        await setup.record(setup.sighting("evt_1", Via.LIST))
        await setup.record(setup.sighting("evt_1"))
        await setup.end_delays(dispatcher)
        await setup.until("delivered")
    assert delivered(consumer) == ["evt_1"]


async def test_a_receipt_for_another_handler_changes_nothing(setup: Any, consumer: Any) -> None:
    other = await setup.add_destination("other")
    async with setup.delivering(reporting(setup, consumer)) as dispatcher:
        await receipt(setup, "evt_1", destination=other)
        await setup.record(setup.sighting("evt_1"))
        await setup.end_delays(dispatcher)
        await setup.until("delivered")
    assert delivered(consumer) == ["evt_1"]


async def test_an_import_during_the_delay_withdraws_the_delivery(setup: Any, consumer: Any) -> None:
    """Both events reached the handler twice."""
    fills_gaps = setup.destination(setup.http(consumer.url), via=frozenset({Via.LIST}), delay_us=DELAY_US)
    async with setup.delivering(fills_gaps) as dispatcher:
        await setup.record(*(setup.sighting(f"evt_{n}", Via.LIST) for n in range(3)))
        await do(setup, "import", {"source": "acme", "events": [{"key": "evt_0"}, {"key": "evt_1"}]})
        await setup.end_delays(dispatcher)
        await setup.until("delivered")
    assert delivered(consumer) == ["evt_2"]
    assert setup.counted("withdrawn") == 2


async def test_an_import_takes_nothing_from_a_handler_behind_us(setup: Any, consumer: Any) -> None:
    async with setup.delivering(setup.destination(setup.http(consumer.url), delay_us=DELAY_US)) as dispatcher:
        await setup.record(setup.sighting("evt_1", Via.LIST))
        await do(setup, "import", {"source": "acme", "events": [{"key": "evt_1"}]})
        await setup.end_delays(dispatcher)
        await setup.until("delivered")
    assert delivered(consumer) == ["evt_1"]


async def test_a_repeated_receipt_changes_nothing(setup: Any) -> None:
    assert await receipt(setup, "evt_1", "evt_1", "evt_2") == {"new": 2, "known": 1, "settled": 0}
    assert await receipt(setup, "evt_1") == {"new": 0, "known": 1, "settled": 0}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"destination": "nobody", "source": "acme", "keys": ["evt_1"]}, "destination 'nobody' is not known"),
        ({"destination": "app", "source": "nobody", "keys": ["evt_1"]}, "source 'nobody' is not configured"),
        ({"destination": "app", "source": "acme", "keys": []}, "length >= 1"),
        ({"destination": "app", "source": "acme", "keys": ["evt\0"]}, "a text has a NUL"),
        ({"destination": "app", "source": "acme", "keys": ["\ud83d"]}, "not valid UTF-8; no receipt was recorded"),
    ],
)
async def test_a_receipt_that_cannot_be_recorded_is_refused(setup: Any, args: dict[str, object], message: str) -> None:
    with pytest.raises(OperationRefused, match=message):
        await do(setup, "receipts", args)
