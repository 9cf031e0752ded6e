"""kill -9 at random moments, under load and with faults of every kind: nothing acknowledged is lost."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from sqlalchemy import exists, func, select

from gapless.domain import Via, from_us
from gapless.ledger import Connection, passes, streams, tallies
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.tables import DELIVERY, EVENT, FINDING
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(900)]
SECOND = timedelta(seconds=1)
GRACE = SECOND


def _listed_first(connection: Connection) -> tuple[int, int]:
    """Return how many events were missed, and how many that were listed first are not missed, pushed or awaited."""
    awaited = exists().where(FINDING.c.source_id == EVENT.c.source_id, FINDING.c.key == EVENT.c.key)
    missed = EVENT.c.missed_cause.is_not(None)
    count = select(func.count()).select_from(EVENT)
    rest = count.where(EVENT.c.via == Via.LIST.value, ~missed, EVENT.c.webhook_us.is_(None), ~awaited)
    return connection.execute(count.where(missed)).scalar_one(), connection.execute(rest).scalar_one()


def faults() -> Faults:
    """Return the faults of the provider while the daemon is killed."""
    return Faults(
        drop=0.2,
        duplicate=0.1,
        delay_s=0.2,
        reorder=0.1,
        late_visible=0.1,
        late_visible_s=3.0,
        bad_signature=0.05,
        throttle_every=17,
        retry_after="1",
        error_rate=0.03,
    )


@pytest.mark.parametrize(("store_url", "kills"), [("sqlite", 30), ("postgresql", 5)], indirect=["store_url"])
async def test_no_event_is_lost_over_kills_at_random_moments(store_url: str, kills: int, tmp_path: Path) -> None:
    chance, began = random.Random(7), datetime.now(UTC).replace(microsecond=0)
    fake = FakeProvider(StripeFormat(), seed=7, retries_s=(0.5, 1.0, 2.0))
    fake.backfill(1500, began - timedelta(hours=20), began - timedelta(minutes=2), ["invoice.paid"])
    async with Consumer().serve() as consumer, fake.serve() as api:
        consumer.answers = lambda _key: 500 if chance.random() < 0.1 else 200
        start = (began - timedelta(hours=21)).strftime("%Y-%m-%dT%H:%M:%SZ")
        settings = f'start = {start}\nslices = 4\ntypes = ["*"]'
        daemon = Gapless(tmp_path, store_url, api, consumer, source=settings)
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        fake.faults = faults()
        trading, caught = asyncio.create_task(_trade(fake, chance)), Counter[str]()
        try:
            async with running(daemon):
                for _ in range(kills):
                    await asyncio.sleep(chance.uniform(0.05, 1.2))
                    await daemon.kill()
                    caught += await _unfinished_work(daemon)
                    assert _acknowledged(fake) <= await daemon.ledger_ids()
                    await daemon.start()
                trading.cancel()
                fake.faults = Faults()
                assert caught["deliveries"], caught
                # on PostgreSQL the lease of one that was killed has to end before the next pass
                assert caught["passes in part"] or store_url.startswith("postgresql"), caught
                await _assert_all_is_well(fake, daemon, consumer)
        finally:
            trading.cancel()


async def _trade(fake: FakeProvider, chance: random.Random) -> None:
    while True:
        for _ in range(chance.randint(1, 5)):
            fake.emit(chance.choice(["invoice.paid", "charge.succeeded", "payout.paid"]))
        await asyncio.sleep(chance.uniform(0.02, 0.2))


async def _unfinished_work(daemon: Gapless) -> Counter[str]:
    """Count what the killed process had started and not finished."""

    def work(connection: Connection) -> Counter[str]:
        running = [passes.slices(connection, row.id) for row in passes.unfinished(connection, 1)]
        begun = [parts for parts in running if any(part.done or part.cursor for part in parts)]
        claimed = select(func.count()).where(
            DELIVERY.c.lease_us.is_not(None), DELIVERY.c.state == DeliveryState.PENDING.value
        )
        return Counter({"passes in part": len(begun), "deliveries": connection.execute(claimed).scalar_one()})

    return await daemon.read(work)


def _acknowledged(fake: FakeProvider) -> set[str]:
    return {push.event.key for push in fake.pushes if push.status is not None and push.status // 100 == 2}


async def _assert_all_is_well(fake: FakeProvider, daemon: Gapless, consumer: Consumer) -> None:
    truth = {event.key for event in fake.events}
    await fake.settle()
    with suppress(AssertionError):
        await until(lambda: truth <= consumer.ids)
    absent = [event for event in fake.events if event.key not in consumer.ids]
    assert not absent, (len(absent), absent[:5], [push for push in fake.pushes if push.event in absent][:9])
    acknowledged, recorded = _acknowledged(fake), await daemon.ledger_ids()

    assert acknowledged
    assert acknowledged <= recorded
    assert recorded == truth
    assert consumer.ids == truth
    assert consumer.changed_ids == {}
    counts = (await daemon.read(lambda connection: tallies.totals(connection, 1))).counts
    assert counts["by_webhook"] + counts["by_list"] == len(truth) == counts["expected"]
    missed, unaccounted = await daemon.read(_listed_first)
    assert sum(counts[name] for name in tallies.MISSED.values()) == missed <= counts["by_list"]
    assert unaccounted == 0
    await _assert_watermark_is_listed(fake, daemon)


async def _assert_watermark_is_listed(fake: FakeProvider, daemon: Gapless) -> None:
    """Every second behind the watermark was listed, first page to last, at least the grace after it had passed."""
    (stream,) = await daemon.read(lambda connection: streams.streams(connection, 1))
    watermark = from_us(stream.watermark_us)
    covered: set[datetime] = set()
    for start, end in _complete_listings(fake):
        second = start
        while second + SECOND <= end:  # a stamp names a whole second, and all of it must have passed
            covered.add(second)
            second += SECOND
    second = from_us(stream.complete_from_us)
    unlisted = []
    while second < watermark:
        if second not in covered:
            unlisted.append(second)
        second += SECOND
    assert not unlisted, (unlisted[:3], len(unlisted), watermark)
    assert watermark > datetime.now(UTC) - timedelta(minutes=1)


def _complete_listings(fake: FakeProvider) -> Iterator[tuple[datetime, datetime]]:
    """Yield the windows that were listed to their last page, cut at the grace before their first request."""
    first_page_at: dict[tuple[datetime, datetime], datetime] = {}
    for request in fake.requests:
        query = request.listing.query if request.listing else None
        if request.listing is None or query is None or query.start is None or query.end is None:
            continue
        window = (query.start, query.end)
        if query.after is None:
            first_page_at[window] = request.at
        if not request.listing.has_more:
            yield query.start, min(query.end, first_page_at[window] - GRACE)
