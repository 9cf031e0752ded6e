"""The loss test of every vendor: it loses, repeats and forges webhooks, shows events late, throttles and breaks.

All that it could list is in the ledger, and what was lost is counted once; what it cannot list is not claimed. The
fake on a socket, the real receiver on another, real passes, a real ledger.
"""

import random
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from receiving import receiving
from sqlalchemy import select
from world import SECRET, T0, Daemon, FakeClock, World, github_in_pages_of, make_stripe

from gapless.domain import Mode, from_us
from gapless.ledger.engine import Store
from gapless.ledger.tables import SOURCE
from gapless.reconcile.scheduler import is_scheduled
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions
from gapless_reconcilers.providers.standard_webhooks import StandardWebhooks, StandardWebhooksOptions
from gapless_reconcilers.providers.telegram import Telegram, TelegramOptions
from gapless_reconcilers.testing.fake import FakeProvider, VendorFormat
from gapless_reconcilers.testing.fake.formats import delivery_logs, plain, rest, vendors
from gapless_reconcilers.testing.fake.formats.github import GitHubFormat
from gapless_reconcilers.testing.fake.formats.paypal import PayPalFormat
from gapless_reconcilers.testing.fake.formats.standard_webhooks import StandardWebhooksFormat
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.formats.telegram import TelegramFormat
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Faults
from gapless_reconcilers.testing.suite.scenario import place, without_secrets

pytestmark = pytest.mark.anyio
SOURCES = Path(__file__).parents[3] / "reconcilers/gapless_reconcilers/declared"
AUTHORITY = Authority(start=T0 - timedelta(days=30), days=600)
PEM, KEY = AUTHORITY.leaf("messageverificationcerts.paypal.com")
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOSSY = Faults(
    drop=0.35, duplicate=0.1, bad_signature=0.1, late_visible=0.2, late_visible_s=20, error_rate=0.03, throttle_every=29
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One vendor: its format, for an address of its API, and the provider that reads it."""

    name: str
    vendor_format: Callable[[str], VendorFormat]
    make: Callable[..., Provider]
    type: str
    secret: str = SECRET


def declared(name: str, vendor_format: type[plain.PlainFormat], event_type: str) -> Vendor:
    """A ready-made vendor as it is declared, but for the address, small pages and secrets."""

    def make(url: str, page_limit: int = 100) -> Provider:  # noqa: ARG001 - its pages are small as it is
        table = tomllib.loads((SOURCES / f"{name}.toml").read_text())["source"][0]["options"]
        named = [key.removesuffix("_env") for key in table["auth"] if key.endswith("_env")]
        table = without_secrets(table, registry.secret_fields("rest_list"))
        place(table, "base_url", url)
        for field in named:
            place(table, f"auth.{field}", Secret("token_fake"))
        if name == "gitlab":
            place(table, "webhook.signature", {"scheme": "token", "header": "X-Gitlab-Token"})
        place(table, "webhook.signature.secret", Secret(SECRET))
        if "url" in table["webhook"]["signature"]:
            place(table, "webhook.signature.url", ADDRESS[0])
        if name == "resend":
            place(table, "webhook.signature.key", "text")  # the fake's secrets are no base64
        if name == "mailgun":
            place(table, "event.key", "id")  # without the day, which the fake's keys do not have
        params: dict[str, Any] = table["list"].get("json") or table["list"]["params"]
        params[next(each for each in ("per_page", "page_size", "limit") if each in params)] = 7
        return registry.build("rest_list", table)

    return Vendor(name=name, vendor_format=lambda _: vendor_format(), make=make, type=event_type)


ADDRESS = [""]
"""The address that Square and Trello send to: it is part of what they sign, so the declaration must name it."""


def make_paypal(url: str, page_limit: int = 7) -> Provider:
    return PayPal(
        PayPalOptions(
            client_id="fake",
            client_secret=Secret("s"),
            webhook_id=("WH-fake",),
            page_size=min(page_limit, 7),
            trust_roots=AUTHORITY.root_pem().decode(),
            api_base=url,
        )
    )


def paypal_format(url: str) -> VendorFormat:
    return PayPalFormat(sign=lambda text: KEY.sign(text, PKCS1v15(), SHA256()), certificate=PEM, base=url)


def make_standard(url: str, page_limit: int = 7) -> Provider:  # noqa: ARG001 - there is nothing to ask
    return StandardWebhooks(StandardWebhooksOptions(secret=(Secret(STANDARD),)))


def make_telegram(url: str, page_limit: int = 7) -> Provider:  # noqa: ARG001 - it hands out what it likes
    return Telegram(TelegramOptions(token=Secret("123456:fake"), webhook_secret=(Secret(SECRET),), api_base=url))


def small_stripe(url: str, page_limit: int = 7) -> Provider:
    return make_stripe(url, min(page_limit, 7))


GITHUB = Vendor(name="github", vendor_format=lambda _: GitHubFormat(), make=github_in_pages_of(7), type="issues.opened")
LISTING = [
    Vendor(name="stripe", vendor_format=lambda _: StripeFormat(), make=small_stripe, type="invoice.paid"),
    GITHUB,
    Vendor(name="paypal", vendor_format=paypal_format, make=make_paypal, type="PAYMENT.SALE.COMPLETED"),
    declared("gocardless", rest.GoCardlessFormat, "payments.confirmed"),
    declared("paddle", rest.PaddleFormat, "transaction.paid"),
    declared("chargebee", rest.ChargebeeFormat, "customer_created"),
    declared("workos", rest.WorkOSFormat, "user.created"),
    declared("increase", rest.IncreaseFormat, "transaction.created"),
    declared("square", rest.SquareFormat, "payment.created"),
]
WITHOUT_END = [
    declared("coinbase-commerce", vendors.CoinbaseCommerceFormat, "charge:confirmed"),
    declared("modern-treasury", vendors.ModernTreasuryFormat, "payment_order.completed"),
    declared("typeform", vendors.TypeformFormat, "form_response"),
    declared("trello", vendors.TrelloFormat, "updateCard"),
    declared("resend", delivery_logs.ResendFormat, "email.delivered"),
]
"""Those whose lists have no end that is known."""
MORE = [
    declared("polar", delivery_logs.PolarFormat, "order.paid"),
    declared("dwolla", vendors.DwollaFormat, "transfer_completed"),
    declared("gitlab", delivery_logs.GitLabFormat, "Issue Hook"),
    declared("mailgun", vendors.MailgunFormat, "delivered"),
    declared("okta", vendors.OktaFormat, "user.lifecycle.create"),
    declared("checkout-previous", vendors.CheckoutFormat, "payment_captured"),
]
STANDARD_WEBHOOKS = Vendor(
    name="standard_webhooks",
    vendor_format=lambda _: StandardWebhooksFormat(),
    make=make_standard,
    type="order.paid",
    secret=STANDARD,
)
TELEGRAM = Vendor(name="telegram", vendor_format=lambda _: TelegramFormat(), make=make_telegram, type="message")


class ToFake(httpx.AsyncHTTPTransport):
    """Redirects requests to the vendor's public name to the fake."""

    def __init__(self, url: httpx.URL) -> None:
        super().__init__()
        self._url = url

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        moved = request.url.copy_with(scheme=self._url.scheme, host=self._url.host, port=self._url.port)
        extensions = {name: value for name, value in request.extensions.items() if name != "sni_hostname"}
        return await super().handle_async_request(
            httpx.Request(
                request.method, moved, headers=request.headers, content=request.content, extensions=extensions
            )
        )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def vendor(request: pytest.FixtureRequest) -> Vendor:
    chosen: Vendor = request.param
    return chosen


@pytest.fixture
async def world(store: Store, clock: FakeClock, vendor: Vendor) -> AsyncIterator[World]:
    fake = FakeProvider(vendor.vendor_format(""), clock=clock, seed=7, retries_s=(0.01, 0.01))
    ADDRESS[0] = "http://unknown.example"
    async with fake.serve() as url:
        fake.vendor_format = vendor.vendor_format(url)
        mounts = {"https://": ToFake(httpx.URL(url))}
        async with httpx.AsyncClient(trust_env=False, timeout=60, mounts=mounts) as client:
            world = World(store=store, clock=clock, fake=fake, client=client, make=vendor.make, url=url)
            await world.open()
            yield world


def subscribe(daemon: Daemon, url: str, vendor: Vendor) -> FakeEndpoint:
    """Register `url` as an endpoint of the vendor."""
    ADDRESS[0] = url
    daemon.runtime.sources.change("acme", provider=daemon.world.provider())
    return daemon.world.fake.add_endpoint(url, secret=vendor.secret)


def acknowledged(world: World) -> set[str]:
    """Return the keys of the events whose webhook was accepted."""
    return {push.event.key for push in world.fake.pushes if push.status == httpx.codes.OK}


async def settle(world: World, daemon: Daemon, clock: FakeClock) -> None:
    await world.fake.settle()
    clock.now += while_events_settle(daemon)
    await daemon.run_source(health=True)


def while_events_settle(daemon: Daemon) -> timedelta:
    """Ten minutes or, if the vendor shows its events later than that, so long that each is shown."""
    grace = daemon.source.provider.capabilities.grace
    return timedelta(minutes=10) if grace < timedelta(minutes=10) else 2 * grace


def named(chosen: Sequence[Vendor], slow: Sequence[Vendor] = ()) -> pytest.MarkDecorator:
    cases = [pytest.param(each, id=each.name) for each in chosen]
    cases += [pytest.param(each, id=each.name, marks=pytest.mark.slow) for each in slow]
    return pytest.mark.parametrize("vendor", cases, indirect=True)


@named([*LISTING, *MORE], slow=WITHOUT_END)
async def test_all_that_the_vendor_could_list_is_recovered_and_counted_once(
    world: World, clock: FakeClock, vendor: Vendor
) -> None:
    chance = random.Random(5)
    async with world.daemon() as daemon, receiving(daemon) as url:
        subscribe(daemon, url, vendor)
        await daemon.run_source(health=True)
        world.fake.faults = replace(LOSSY)
        for _ in range(90):
            world.fake.emit(vendor.type)
            if chance.random() < 0.4:  # the others share a moment
                clock.advance(seconds=chance.randrange(40))
            if chance.random() < 0.06:
                await settle(world, daemon, clock)
        await world.fake.settle()
        world.fake.faults = Faults()
        for _ in range(2):
            await settle(world, daemon, clock)
        assert await world.keys() == world.listed()
        lost = world.listed() - acknowledged(world)
        assert 10 < len(lost) < 60
        assert await world.missed() == len(lost)
        via = await world.via()
        assert {key for key, first_seen in via.items() if first_seen == "list"} == lost
        counts = (await world.totals()).counts
        assert (counts["unlisted"], await world.missing_open()) == (0, 0)
        stream = await world.stream()
        assert (stream.last_outcome, stream.parked_reason) == ("clean", None)
        assert from_us(stream.watermark_us) >= clock() - while_events_settle(daemon)
        assert not await world.unrecoverable()


@named(LISTING, slow=MORE)
async def test_what_fell_out_of_the_vendors_history_is_written_down_as_unrecoverable(
    world: World, clock: FakeClock, vendor: Vendor
) -> None:
    async with world.daemon() as daemon, receiving(daemon) as url:
        subscribe(daemon, url, vendor)
        await settle(world, daemon, clock)
        world.fake.faults = Faults(webhooks_off=True)
        for _ in range(5):
            world.fake.emit(vendor.type)
        history = daemon.source.provider.capabilities.history
        assert history is not None
        clock.now += history + timedelta(days=12)
        late = {world.fake.emit(vendor.type).key for _ in range(3)}
        await settle(world, daemon, clock)
        await settle(world, daemon, clock)
        assert await world.keys() == late
        (loss,) = await world.unrecoverable()
        assert loss.reason == "history_exceeded"
        assert from_us(loss.start_us) <= T0 + while_events_settle(daemon)
        assert from_us(loss.end_us) > T0 + timedelta(days=11)
        assert await world.missed() == len(late)


@named([GITHUB])
async def test_what_happened_while_the_hook_was_off_is_unrecoverable(
    world: World, clock: FakeClock, vendor: Vendor
) -> None:
    async with world.daemon() as daemon, receiving(daemon) as url:
        hook = subscribe(daemon, url, vendor)
        await settle(world, daemon, clock)
        world.fake.emit(vendor.type)
        await settle(world, daemon, clock)
        seen = await world.keys()
        hook.enabled, world.fake.faults = False, Faults(unlogged=True)
        for _ in range(4):
            world.fake.emit(vendor.type)
        await settle(world, daemon, clock)
        hook.enabled, world.fake.faults = True, Faults()
        world.fake.emit(vendor.type, push=False)
        for _ in range(2):
            await settle(world, daemon, clock)
        assert len(await world.keys()) == len(seen) + 1
        assert {loss.reason for loss in await world.unrecoverable()} == {"subscription_inactive"}
        assert await world.missed() == 1


@named([GITHUB])
async def test_what_was_lost_before_is_recovered_while_the_hook_is_off(
    world: World, clock: FakeClock, vendor: Vendor
) -> None:
    async with world.daemon() as daemon, receiving(daemon) as url:
        hook = subscribe(daemon, url, vendor)
        await settle(world, daemon, clock)
        lost = world.fake.emit(vendor.type, push=False).key
        at = clock()
        clock.advance(minutes=1)
        hook.enabled, world.fake.faults = False, Faults(unlogged=True)
        await settle(world, daemon, clock)
        assert lost in await world.keys()
        stream = await world.stream()
        assert stream.parked_reason is not None
        assert "proves nothing" in stream.parked_reason
        assert from_us(stream.watermark_us) <= at


@named([LISTING[-1]])
async def test_a_store_that_is_switched_off_makes_its_list_suspect_and_proves_nothing(
    world: World, clock: FakeClock, vendor: Vendor
) -> None:
    """One webhook that the list should show and does not is enough: completeness stays unknown from there on."""
    async with world.daemon() as daemon, receiving(daemon) as url:
        subscribe(daemon, url, vendor)
        await settle(world, daemon, clock)
        world.fake.faults = Faults(unlogged=True)
        pushed = world.fake.emit(vendor.type)
        await world.fake.settle()
        world.fake.faults = Faults(unlogged=True, webhooks_off=True)
        world.fake.emit(vendor.type)
        for _ in range(3):
            await settle(world, daemon, clock)
        assert await world.keys() == {pushed.key}
        stream = await world.stream()
        assert (stream.last_outcome, await world.missed()) == ("suspect_listing", 0)
        assert from_us(stream.watermark_us) <= pushed.occurred_at


@named([STANDARD_WEBHOOKS])
async def test_what_is_only_pushed_is_recorded_and_nothing_is_claimed_of_the_rest(world: World, vendor: Vendor) -> None:
    world.mode = Mode.WEBHOOK
    async with world.daemon() as daemon, receiving(daemon) as url:
        subscribe(daemon, url, vendor)
        assert not is_scheduled(daemon.source)
        world.fake.faults = Faults(drop=0.3, duplicate=0.2, bad_signature=0.2)
        for _ in range(60):
            world.fake.emit(vendor.type)
        await world.fake.settle()
        assert await world.keys() == acknowledged(world)
        assert 0 < len(await world.keys()) < 60
        assert (await world.report()).listed is None
        assert (await world.totals()).expected == 0
        assert (await world.stream()).last_outcome is None


@named([TELEGRAM])
async def test_all_that_is_handed_out_is_recorded_though_the_vendor_forgets_it(
    world: World, clock: FakeClock, vendor: Vendor
) -> None:
    world.mode = Mode.POLL
    for _ in range(3):
        async with world.daemon() as daemon:
            world.fake.faults = Faults(error_rate=0.2, throttle_every=5)
            for _ in range(40):
                world.fake.emit(vendor.type)
                clock.advance(seconds=1)
            for _ in range(6):
                clock.advance(minutes=1)
                await daemon.run_source()
    world.fake.faults = Faults()
    async with world.daemon() as daemon:
        await settle(world, daemon, clock)
    assert await world.keys() == world.listed()
    assert world.fake.vendor_format.forgotten == 70_001 + 120  # type: ignore[attr-defined]
    assert await world.missed() == 0


@named([TELEGRAM])
async def test_a_webhook_of_telegrams_carries_its_updates(world: World, vendor: Vendor) -> None:
    world.mode = Mode.WEBHOOK
    async with world.daemon() as daemon, receiving(daemon) as url:
        subscribe(daemon, url, vendor)
        assert is_scheduled(daemon.source)
        world.fake.faults = Faults(duplicate=0.3, bad_signature=0.2)
        for _ in range(30):
            world.fake.emit(vendor.type)
        await world.fake.settle()
        assert await world.keys() == acknowledged(world) != set()
        assert (await world.report()).listed is None
        await daemon.run_source(health=True)
        paths = [each.path.rpartition("/")[2] for each in world.fake.requests]
        assert ("getWebhookInfo" in paths, "getUpdates" in paths) == (True, False)
        row = await world.store.read(lambda c: c.execute(select(SOURCE)).mappings().one())
        assert row["subscription_healthy"] is True
        assert (await world.stream()).last_outcome is None
