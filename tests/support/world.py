"""The surroundings of a daemon under test: a fake provider, a real ledger, and a clock that only tests move.

The provider is Stripe unless `World.make` builds another. `World` holds what survives a crash. A `Daemon` is one
process in it, with the real engine and without listeners.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import httpx
from sqlalchemy import select

from gapless.bootstrap.runtime import make_writer
from gapless.daemon.maintenance import count_recovered
from gapless.deliver.routing import build_route
from gapless.domain import ALL_TYPES, Mode, Route, Source, Sources, TypePatterns, TypesOrigin, Via, to_us
from gapless.ledger import Connection, leases, passes, sources, streams, tallies
from gapless.ledger.engine import Store
from gapless.ledger.leases import Lease
from gapless.ledger.passes import Pass, PassKind
from gapless.ledger.recorder import Recorder, Sighting, Webhook
from gapless.ledger.snapshot import UnrecoverableEntry
from gapless.ledger.streams import Stream
from gapless.ledger.tables import DELIVERY, EVENT, PASS
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, RequestRetryPolicy
from gapless.receive.evidence import EvidenceFetcher
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.pace import Pace
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.source_run import SourceRun
from gapless.runtime import Runtime
from gapless.settings import PublicSettings
from gapless.status.reader import read_report
from gapless.status.report import ListReport, SourceReport, StatusReport
from gapless_reconcilers.kit.contract import Provider, Reply, Secret, WebhookRequest, Window
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.http_server import ApiRequest
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint

T = TypeVar("T")
T0 = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECRET = "whsec_world"
DEFAULTS = PublicSettings()
NO_ROUTE = build_route([])
HASTY = RequestRetryPolicy(
    attempts=2,
    total=timedelta(seconds=1),
    first_wait=timedelta(milliseconds=1),
    longest_wait=timedelta(milliseconds=10),
)
POLICY = SourcePolicy(
    pace=Pace(shortest=timedelta(seconds=10), longest=timedelta(minutes=5), adaptive=True),
    lookback=timedelta(minutes=15),
    sweep_every=timedelta(days=36_500),
    slices=4,
    rate=10_000,
    capabilities=Stripe.capabilities,
    request_within=timedelta(seconds=60),
    webhook_url="/webhooks/acme",
    share_account=False,
    repair=False,
)


class FakeClock:
    """A clock that shows the time that a test sets."""

    def __init__(self, now: datetime = T0) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass(kw_only=True)
class InProcess(httpx.AsyncBaseTransport):
    """Sends requests to the fake without a socket. `before` runs before each request, and may raise."""

    fake: FakeProvider
    before: Callable[[httpx.Request], None] = lambda _: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        api_request = ApiRequest(
            method=request.method,
            path=request.url.path,
            params=tuple(parse_qsl(request.url.query.decode(), keep_blank_values=True)),
            headers=dict(request.headers),
            body=await request.aread(),
        )
        answer = await self.fake._respond(api_request)
        date = {"date": format_datetime(self.fake.clock(), usegmt=True), "content-type": "application/json"}
        return httpx.Response(answer.status, headers={**date, **answer.headers}, content=answer.body)


def make_stripe(url: str, page_limit: int = 100) -> Provider:
    """Return a provider for the Stripe of `new_fake`, whose API is at `url`."""
    return Stripe(
        StripeOptions(
            api_key=Secret("sk_live_fake"), webhook_secret=(Secret(SECRET),), page_limit=page_limit, api_base=url
        )
    )


def github_in_pages_of(most: int) -> Callable[..., Provider]:
    """Return what makes a provider for the GitHub hook of a fake, with pages of at most that many deliveries."""

    def make(url: str, page_limit: int = 100) -> Provider:
        return GitHub(
            GitHubOptions(
                token=Secret("ghp_fake"),
                webhook_secret=(Secret(SECRET),),
                repository="acme/shop",
                hook_id=77,
                page_limit=min(page_limit, most),
                api_base=url,
            )
        )

    return make


@dataclass(kw_only=True)
class World:
    """The vendor, the database and the clock. `make(url, page_limit)` builds the provider that reads the vendor."""

    store: Store
    clock: FakeClock = field(default_factory=FakeClock)
    fake: FakeProvider
    client: httpx.AsyncClient
    make: Callable[..., Provider] = make_stripe
    url: str = "http://vendor.test"
    start: datetime = T0
    mode: Mode = Mode.HYBRID
    source_id: int = 0
    stream_id: int = 0

    async def open(self) -> None:
        """Make the rows of the source."""

        def work(connection: Connection) -> tuple[int, int]:
            kind = self.provider().kind
            row = ("acme", kind, self.mode.value, self.start, self.clock())
            source_id = sources.register_source(connection, *row, livemode=self.source().livemode)
            return source_id, streams.streams(connection, source_id)[0].id

        self.source_id, self.stream_id = await self.store.write(work)

    def provider(self, page_limit: int = 100) -> Provider:
        return self.make(self.url, page_limit)

    def source(
        self, *, page_limit: int = 100, types: Sequence[str] | None = None, keep_unsubscribed: bool = False
    ) -> Source:
        """Return the source as a process is configured with it."""
        return Source(
            id=self.source_id,
            name="acme",
            provider=self.provider(page_limit),
            mode=self.mode,
            start=self.start,
            types=ALL_TYPES if types is None else TypePatterns(types),
            types_origin=TypesOrigin.ASSUMED if types is None else TypesOrigin.CONFIG,
            keep_unsubscribed=keep_unsubscribed,
        )

    @asynccontextmanager
    async def daemon(
        self,
        *,
        slot: int = 0,
        holder: str = "one",
        route: Route = NO_ROUTE,
        types: Sequence[str] | None = None,
        keep_unsubscribed: bool = False,
        page_limit: int = 100,
        store: Store | None = None,
        settings: PublicSettings = DEFAULTS,
        **policy: Any,
    ) -> AsyncIterator["Daemon"]:
        """Run a process in this world. `store`: its own connection to the same database."""
        source = self.source(page_limit=page_limit, types=types, keep_unsubscribed=keep_unsubscribed)
        recorder, metrics = Recorder(slot, route), Metrics("test")
        writer = make_writer(settings, store or self.store, recorder, metrics)
        daemon = Daemon(
            world=self,
            runtime=Runtime(
                store=store or self.store,
                writer=writer,
                clock=self.clock,
                metrics=metrics,
                sources=Sources([source]),
            ),
            policy=replace(POLICY, **{"capabilities": source.provider.capabilities, **policy}),
            holder=holder,
        )
        writing = asyncio.create_task(writer.run())
        try:
            yield daemon
            writer.close()
            await writing
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    # --- what the ledger and the provider hold

    async def keys(self) -> set[str]:
        """Return the keys of the recorded events."""
        return set(await self.store.read(lambda c: c.execute(select(EVENT.c.key)).scalars().all()))

    async def via(self) -> dict[str, str]:
        """Return how each event was first recorded, by key."""
        return dict(
            await self.store.read(lambda c: [tuple(row) for row in c.execute(select(EVENT.c.key, EVENT.c.via))])
        )

    async def owed(self) -> int:
        """Return the number of deliveries."""
        return len(await self.store.read(lambda c: c.execute(select(DELIVERY.c.event_seq)).all()))

    async def stream(self, name: str = "") -> Stream:
        found = await self.store.read(streams.streams, source_id=self.source_id)
        return next(each for each in found if each.name == name)

    async def whole_report(self) -> StatusReport:
        """Return the report as metrics, API and page show it."""
        return await read_report(self.store, Sources([self.source()]), self.clock())

    async def report(self) -> SourceReport:
        """Return the report of the source."""
        return (await self.whole_report()).sources[0]

    async def comparison(self) -> ListReport:
        """Return the part of the report that comes from comparing with the list."""
        listed = (await self.report()).listed
        assert listed is not None
        return listed

    async def complete_up_to(self) -> datetime | None:
        return (await self.comparison()).proof.complete_up_to

    async def totals(self) -> tallies.Totals:
        return await self.store.read(tallies.totals, source_id=self.source_id)

    async def missed(self) -> int:
        return (await self.totals()).missed

    async def passes(self) -> list[dict[str, Any]]:
        """Return the passes, newest first."""
        query = select(PASS).where(PASS.c.source_id == self.source_id).order_by(PASS.c.id.desc())
        return await self.store.read(lambda c: [dict(row) for row in c.execute(query).mappings()])

    async def unrecoverable(self) -> Sequence[UnrecoverableEntry]:
        return (await self.report()).unrecoverable

    async def missing_open(self) -> int:
        return (await self.comparison()).missing_open

    def listed(self) -> set[str]:
        """Return the keys of all events that the provider ever had."""
        return {event.key for event in self.fake.events}


@dataclass(kw_only=True)
class Daemon:
    """One process: its writer runs all the time, its source one run at a time."""

    world: World
    runtime: Runtime
    policy: SourcePolicy
    holder: str
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _client: ProviderClient | None = None

    @property
    def source(self) -> Source:
        return self.runtime.sources["acme"]

    @property
    def client(self) -> ProviderClient:
        if self._client is None:
            self._client = ProviderClient(
                self.world.client,
                self.runtime.sources,
                "acme",
                clock=self.world.clock,
                metrics=self.runtime.metrics,
                rate=self.policy.rate,
                retry=HASTY,
            )
        return self._client

    def recoveries(self, via: str = "list") -> tuple[int, float]:
        """Return how many missed events the metric of recoveries has counted, and their times in seconds together."""
        count_recovered(self.runtime)
        labels, read = {"source": "acme", "via": via}, self.runtime.metrics.registry.get_sample_value
        count, total = (read(f"gapless_recovery_seconds_{name}", labels) for name in ("count", "sum"))
        return int(count or 0), total or 0.0

    async def lease(self) -> Lease | None:
        """Make the source due and take its lease; None if another process holds it."""

        def work(connection: Connection) -> Lease | None:
            now_us = to_us(self.world.clock())
            sources.make_due_now(connection, self.world.source_id, now_us)
            return leases.claim(connection, self.world.source_id, self.holder, now_us)

        return await self.runtime.write(work)

    def source_run(self, lease: Lease, *, health: bool = False) -> SourceRun:
        leased = LeasedSource(
            runtime=self.runtime, client=self.client, policy=self.policy, lease=lease, stopping=self.stopping
        )
        return SourceRun(leased=leased, check_account=health, check_endpoint=health)

    async def run_source(self, *, health: bool = False) -> None:
        """Run the source once, as the scheduler does."""
        lease = await self.lease()
        assert lease is not None
        await self.source_run(lease, health=health).run()

    async def demand(self, start: datetime, end: datetime) -> Pass:
        """Make the rows of a demanded pass."""
        stream = await self.world.stream()
        window, now_us = Window(start=start, end=end), to_us(self.world.clock())
        return await self.runtime.write(
            passes.begin_window,
            stream=stream,
            kind=PassKind.DEMAND,
            window=window,
            now_us=now_us,
            unit=self.policy.capabilities.slice_unit,
        )

    async def webhook(self, event: FakeEvent) -> Webhook:
        """Return the event as its webhook carries it, verified and parsed as the receiver does."""
        endpoint = FakeEndpoint(number=0, url="", secret=SECRET, types=("*",), connect=False)
        message = self.world.fake.vendor_format.message(event, endpoint, self.world.clock(), genuine=True)
        headers = tuple((name.encode(), value.encode()) for name, value in message.headers.items())
        request = WebhookRequest(headers=headers, body=message.body)
        evidence = EvidenceFetcher(self.world.client, self.world.clock, self.runtime.metrics)
        reply = await evidence.read(self.source, request, self.world.clock())
        assert isinstance(reply, Reply), reply
        named = {each.stream: await self._stream_id(each.stream) for each in reply.events}
        seen = partial(self.sighting, via=Via.WEBHOOK, body=message.body)
        return tuple(seen(each, stream_id=named[each.stream]) for each in reply.events)

    async def _stream_id(self, name: str) -> int:
        """Return the id of the stream, which is made if it is new."""
        return (
            self.world.stream_id
            if not name
            else await self.runtime.write(streams.ensure_stream, source_id=self.world.source_id, name=name)
        )

    def sighting(
        self, event: Any, via: Via, body: bytes | None = None, *, stream_id: int | None = None, **changes: Any
    ) -> Sighting:
        return Sighting(
            source=self.source,
            stream_id=self.world.stream_id if stream_id is None else stream_id,
            event=event,
            via=via,
            seen_us=to_us(self.world.clock()),
            body=body,
            **changes,
        )

    async def push(self, *events: FakeEvent) -> list[int]:
        """Receive the webhooks of `events` together. Return how many events of each were new."""
        webhooks = [await self.webhook(event) for event in events]
        return await asyncio.gather(*(self.runtime.writer.record(each, 500) for each in webhooks))


def new_fake(clock: Callable[[], datetime], **options: Any) -> FakeProvider:
    """Return a fake Stripe account that runs on `clock`."""
    return FakeProvider(StripeFormat(**options), clock=clock)
