"""The receiver as the daemon wires it: a real store, a real writer, a real uvicorn on a free port."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gapless.bootstrap.runtime import make_writer
from gapless.connections.limits import ConnectionLimits
from gapless.connections.register import Connections
from gapless.daemon.listeners import Listener
from gapless.daemon.process import receive_options
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources
from gapless.ledger import sources as ledger_sources
from gapless.ledger.engine import Store
from gapless.ledger.recorder import Recorder
from gapless.ledger.tables import EVENT, QUARANTINE
from gapless.metrics import Metrics
from gapless.receive.endpoint import Receiver, make_receiver
from gapless.receive.server import build_app
from gapless.runtime import Runtime
from gapless.settings import Settings
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DEFAULTS = Settings()
PATIENT = timedelta(minutes=2)
"""A busy machine may take longer than a vendor waits."""
OLD_SECRET, NEW_SECRET = "whsec_before", "whsec_after"


def stripe(*secrets_known: str) -> Stripe:
    known = tuple(Secret(value) for value in secrets_known or (OLD_SECRET, NEW_SECRET))
    return Stripe(StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=known, livemode=False))


class Monotonic:
    """The time by which connections are judged: it passes, and `pass_` lets more of it pass at once."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def pass_(self, seconds: float) -> None:
        self._ahead += seconds


@dataclass(kw_only=True)
class ReceiverSetup:
    """A running receiver, with requests to it and a view of its results."""

    url: str
    store: Store
    receiver: Receiver
    source: Source
    client: httpx.AsyncClient
    listener: Listener
    monotonic: "Monotonic"
    now: list[datetime] = field(default_factory=lambda: [NOW])

    def event(self, key: str, **changes: Any) -> bytes:
        event = {
            "id": key,
            "object": "event",
            "type": "invoice.paid",
            "created": int(NOW.timestamp()) - 2,
            "livemode": False,
            "data": {"object": {"id": "in_1", "object": "invoice"}},
        }
        return json.dumps(event | changes).encode()

    def signature(self, body: bytes, secret: str = NEW_SECRET) -> dict[str, str]:
        sent_at = int(self.now[0].timestamp())
        digest = hmac.new(secret.encode(), b"%d.%b" % (sent_at, body), hashlib.sha256).hexdigest()
        return {"Stripe-Signature": f"t={sent_at},v1={digest}"}

    async def post(self, body: bytes, secret: str = NEW_SECRET) -> httpx.Response:
        return await self.client.post("/webhooks/acme", content=body, headers=self.signature(body, secret))

    async def events(self) -> dict[str, int]:
        """Webhooks noted of each event, by key."""
        rows = await self.store.read(lambda c: c.execute(select(EVENT.c.key, EVENT.c.webhook_count)).all())
        return {row.key: row.webhook_count for row in rows}

    async def quarantined(self) -> list[str]:
        """Return the reason of each webhook that is kept whole, once every offered one is written."""
        await self.settled()
        whole = select(QUARANTINE.c.reason).where(QUARANTINE.c.purged_us.is_(None))
        return list(await self.store.read(lambda c: c.execute(whole).scalars().all()))

    async def settled(self) -> None:
        """Wait until the quarantine has nothing left to do."""
        await until(self.receiver.quarantine._waiting.empty)
        await self.receiver.runtime.writer.submit_idle(lambda _: None)

    async def counts(self, name: str, at_least: float, **labels: str) -> None:
        """Wait until a series has reached a value."""
        await until(lambda: self.counted(name, **labels) >= at_least)

    def counted(self, name: str, **labels: str) -> float:
        return self.receiver.runtime.metrics.registry.get_sample_value(f"gapless_{name}", labels) or 0.0


async def until(true: Callable[[], bool]) -> None:
    """Wait, a few seconds at most, until `true()`."""
    for _ in range(1_000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


Serve = Callable[..., Any]


@asynccontextmanager
async def served(
    store: Store,
    *,
    provider: Provider | None = None,
    settings: Settings = DEFAULTS,
    retired: dict[str, int] | None = None,
    writes: bool = True,
    vendor: httpx.AsyncClient | None = None,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - frozen
    **options: Any,
) -> AsyncIterator[ReceiverSetup]:
    """A receiver on `store`. `writes=False`: its writer never commits, as if the disk hung. `vendor`: serves evidence.
    `limits`: of its connections.

    `options`: what differs from the settings in `ReceiveOptions`.
    """
    provider = provider or stripe()
    start = NOW - timedelta(days=1)
    source_id = await store.write(lambda c: ledger_sources.register_source(c, "acme", "stripe", "hybrid", start, NOW))
    row = await store.read(lambda c: ledger_sources.source_row(c, source_id))
    source = Source(
        id=source_id, name="acme", provider=provider, mode=Mode.HYBRID, start=start, digest_key=row["digest_key"]
    )
    metrics, now, monotonic = Metrics("test"), [NOW], Monotonic()
    writer = make_writer(settings.public, store, Recorder(0, build_route([])), metrics)
    runtime = Runtime(store=store, writer=writer, clock=lambda: now[0], metrics=metrics, sources=Sources([source]))
    receiver = make_receiver(
        runtime, client=vendor, options=replace(receive_options(settings), **{"answer_within": PATIENT, **options})
    )
    listener = Listener(
        build_app(receiver, retired), "127.0.0.1", 0, Connections("public", metrics, limits, monotonic.now)
    )
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(listener.run())
        writing = tasks.create_task(writer.run()) if writes else None
        keeping = tasks.create_task(receiver.quarantine.run())
        await listener.started()
        async with httpx.AsyncClient(base_url=listener.address, timeout=120) as client:
            yield ReceiverSetup(
                url=listener.address,
                store=store,
                receiver=receiver,
                source=source,
                client=client,
                listener=listener,
                monotonic=monotonic,
                now=now,
            )
        listener.stop()
        listener._server.force_exit = not writes
        await serving
        keeping.cancel()
        writer.close()
        if writing:
            await writing


@pytest.fixture
def serve(store: Store) -> Serve:
    """`async with serve(settings=…) as setup`: as `served`, on each kind of store."""

    def start(**options: Any) -> Any:
        return served(store, **options)

    return start


@pytest.fixture
def serve_on() -> Serve:
    """`async with serve_on(store, …) as setup`: on a store of the test's own."""
    return served
