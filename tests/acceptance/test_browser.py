"""The console in a real browser, against a real daemon: with a mouse, by keyboard alone, without a script, on a phone.

The browser is Debian's Chromium. What it shows is looked through by axe.
"""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LISTS = (
    "/", "/live", "/events", "/missed", "/passes", "/dead-letters", "/quarantine", "/unrecoverable", "/destinations",
    "/audit-log", "/tokens", "/sources/stripe-live",
)  # fmt: skip
GRAVE = ("serious", "critical")


@pytest.fixture(scope="session")
def chromium(absent: Callable[[str, str], NoReturn]) -> str:
    """The browser's program."""
    return shutil.which("chromium") or absent("chromium", "it is not on the PATH; apt-get install chromium")


@dataclass(kw_only=True)
class Shop:
    """A daemon with a few events, one of which its consumer refuses for good as long as `refuses`."""

    daemon: Gapless
    fake: FakeProvider
    consumer: Consumer
    refused: str
    tokens: dict[str, str]
    refuses: list[bool] = field(default_factory=lambda: [True])


@asynccontextmanager
async def open_shop(folder: Path) -> AsyncIterator[Shop]:
    fake, refuses = FakeProvider(StripeFormat()), [True]
    consumer = Consumer()
    async with consumer.serve(), fake.serve() as api:
        daemon = Gapless(folder, f"sqlite:///{folder / 'ledger.db'}", api, consumer)
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        async with running(daemon):
            events = [fake.emit("invoice.paid") for _ in range(5)]
            await fake.settle()
            await until(lambda: {each.key for each in events} <= consumer.ids)
            consumer.answers = lambda _: 410 if refuses[0] else 200
            refused = fake.emit("invoice.payment_failed")
            await fake.settle()
            await until(lambda: refused.key in consumer.ids)
            tokens = {}
            for role in ("operator", "viewer"):
                code, out, err = await daemon.call("token", "create", f"{role}-1", "--role", role, "--expires", "1d")
                assert code == 0, err
                tokens[role] = out.strip()
            yield Shop(daemon=daemon, fake=fake, consumer=consumer, refused=refused.key, tokens=tokens, refuses=refuses)


@asynccontextmanager
async def browsing(chromium: str, shop: Shop, **options: Any) -> AsyncIterator[Any]:
    """A page in a browser of its own, which must not complain about anything: a script, the policy, a missing file."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 - it is large

    complaints: list[str] = []
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = await browser.new_context(base_url=shop.daemon.private, **{"viewport": DESKTOP} | options)
        page = await context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        await browser.close()
    assert complaints == []


def is_complaint(said: Any) -> bool:
    """True for an error, unless it is that the daemon has ended."""
    return said.type == "error" and "net::ERR_CONNECTION" not in said.text and "WebSocket connection" not in said.text


async def sign_in(page: Any, token: str) -> None:
    await page.goto("/login")
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/")


async def test_an_operator_finds_an_event_and_sends_it_again(chromium: str, tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop, browsing(chromium, shop) as page:
        await sign_in(page, shop.tokens["operator"])
        assert await page.locator(".verdict.good").count() == 0
        await page.keyboard.press("/")
        await page.keyboard.type(shop.refused)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/events/stripe-live/{shop.refused}")
        assert "dead letter" in (await page.locator(".verdict").inner_text()).lower()
        shop.refuses[0] = False
        await page.get_by_role("link", name="Requeue… consumer").click()
        dialog = page.locator("#action[open]")
        await dialog.get_by_label("Reason").fill("the consumer was mended")
        assert "gapless dead requeue" in await dialog.locator("code").inner_text()
        await dialog.get_by_role("button", name="Requeue 1").click()
        await page.get_by_text("Requeued: 1.").wait_for()
        await until(lambda: len(shop.consumer.got[shop.refused]) >= 2)

        async def delivered() -> bool:
            await page.reload()
            return bool(await page.locator(".verdict.good").count())

        await until(delivered)
        await page.get_by_role("link", name="Replay…").click()
        await dialog.get_by_label("Reason").fill("once more, to see it")
        await dialog.get_by_role("button", name="Replay 1").click()
        await until(lambda: len(shop.consumer.got[shop.refused]) >= 3)
        assert len(set(shop.consumer.got[shop.refused])) == 1, "the idempotency key stays"
        await page.goto("/audit-log")
        log = await page.locator("main").inner_text()
        assert "the consumer was mended" in log
        assert "operator-1" in log
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/login")
        await page.goto("/events")
        assert "Not signed in" in await page.locator("footer.foot").inner_text()


async def test_a_pass_is_run_and_a_viewer_is_refused(chromium: str, tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop, browsing(chromium, shop) as page:
        await sign_in(page, shop.tokens["operator"])
        await page.goto("/passes")
        await page.get_by_role("link", name="Run a pass…").click()
        dialog = page.locator("#action[open]")
        await dialog.get_by_label("From").select_option("1h")
        await dialog.get_by_label("Reason").fill("looking once more")
        await dialog.get_by_role("button", name="Read now").click()
        await page.get_by_text("The list of stripe-live is read now").wait_for()

        async def read() -> bool:
            await page.goto("/passes?source=stripe-live")
            row = page.locator("tbody tr", has_text="demand").first
            return bool(await row.count()) and "running" not in await row.inner_text()

        await until(read)
        await page.get_by_role("button", name="Sign out").click()
        await sign_in(page, shop.tokens["viewer"])
        await page.goto("/dead-letters")
        assert await page.get_by_role("link", name="Requeue").count() == 0
        assert await page.get_by_role("button", name="needs the role operator").first.is_disabled()
        await page.goto("/actions/requeue?destination=consumer")
        assert await page.get_by_role("button", name="needs the role operator").is_disabled()


async def test_events_and_gaps_are_seen_live(chromium: str, tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop, browsing(chromium, shop) as page:
        await sign_in(page, shop.tokens["viewer"])
        await page.goto("/live")
        await page.locator("#indicator[data-state=live]").wait_for()
        await page.locator("#gapline .chip.good").wait_for()
        event = shop.fake.emit("charge.succeeded")
        await page.locator("#stream tr.fresh", has_text=event.key).wait_for()
        await page.get_by_role("button", name="Pause").click()
        other = shop.fake.emit("charge.refunded")
        await page.get_by_text("Paused: 1 new row waits.").wait_for()
        assert await page.locator("#stream tr", has_text=other.key).count() == 0
        await page.get_by_role("button", name="Go on").click()
        await page.locator("#stream tr", has_text=other.key).wait_for()
        await shop.daemon.end()
        await page.locator("#indicator[data-state=lost]").wait_for()
        await page.goto("about:blank")


async def test_without_a_script_and_by_keyboard_alone_everything_can_be_done(chromium: str, tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        async with browsing(chromium, shop) as page:
            await walk_by_keyboard(page, shop)
        async with browsing(chromium, shop, java_script_enabled=False) as page:
            await sign_in(page, shop.tokens["operator"])
            shop.refuses[0] = False
            await page.goto("/dead-letters")
            await page.get_by_role("link", name="Requeue… consumer").first.click()
            await page.get_by_label("Reason").fill("without a script")
            await page.get_by_role("button", name="Requeue 1").click()
            await page.get_by_text("Requeued: 1.").wait_for()
            await until(lambda: len(shop.consumer.got[shop.refused]) >= 2)


async def walk_by_keyboard(page: Any, shop: Shop) -> None:
    await page.goto("/login")
    await page.keyboard.type(shop.tokens["operator"])  # the field has the focus
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/")
    await page.keyboard.press("g")
    await page.keyboard.press("e")
    await page.wait_for_url("**/events")
    for key in ("j", "j", "k", "Enter"):
        await page.keyboard.press(key)
    await page.wait_for_url(f"**/events/stripe-live/{shop.refused}")
    utc = await page.locator("[data-zone]").inner_text()
    await page.keyboard.press("u")
    assert (utc, await page.locator("[data-zone]").get_attribute("aria-pressed")) == ("UTC", "true")
    await page.keyboard.press("?")
    assert await page.locator("#keys[open]").count() == 1
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Requeue… consumer").focus()
    await page.keyboard.press("Enter")
    await page.locator("#action[open]").wait_for()
    assert await page.evaluate("document.activeElement.id") == "f-note"
    await page.keyboard.press("Escape")
    assert "Requeue" in await page.evaluate("document.activeElement.textContent")


async def test_axe_finds_nothing_serious_on_any_page(chromium: str, node_modules: Path, tmp_path: Path) -> None:
    axe = (node_modules / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    async with open_shop(tmp_path) as shop:
        more = (f"/events/stripe-live/{shop.refused}", "/passes/1", "/destinations/consumer", "/actions/read")
        for scheme, viewport in (("light", DESKTOP), ("dark", PHONE)):
            async with browsing(chromium, shop, color_scheme=scheme, viewport=viewport) as page:
                await page.goto("/login")
                found = await grave(page, axe)
                await sign_in(page, shop.tokens["operator"])
                for path in (*LISTS, *more):
                    await page.goto(path)
                    found += [f"{path}: {each}" for each in await grave(page, axe)]
                    assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], path
                assert found == [], scheme


async def grave(page: Any, axe: str) -> list[str]:
    await page.evaluate(axe)
    found = await page.evaluate("axe.run()")
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found["violations"] if each["impact"] in GRAVE
    ]
