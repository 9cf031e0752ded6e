"""Events of localstripe, an emulation of Stripe; the daemon runs as a process and is killed for part of the time."""

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, free_port, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.xdist_group("localstripe")]  # it keeps one file in /tmp
KEY = "sk_test_12345"


@pytest.fixture
def localstripe(absent: Callable[[str, str], NoReturn], tmp_path: Path) -> Iterator[str]:
    """The base address of a localstripe of its own."""
    if importlib.util.find_spec("localstripe") is None:
        absent("localstripe", "pip install localstripe")
    port = free_port()
    with (tmp_path / "localstripe.log").open("wb") as log:
        command = [sys.executable, "-m", "localstripe", "--port", str(port), "--from-scratch"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


class Shop:
    """A client that creates business events through localstripe's API."""

    def __init__(self, base: str) -> None:
        self.client = httpx.AsyncClient(base_url=base, auth=(KEY, ""), trust_env=False, timeout=60)

    async def post(self, path: str, **fields: str) -> dict[str, Any]:
        response = await self.client.post(path, data=fields)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    async def is_up(self) -> bool:
        try:
            return (await self.client.get("/v1/events")).is_success
        except httpx.TransportError:
            return False

    async def trade(self, number: int) -> None:
        """Create a customer with a subscription, an invoice and a payout."""
        customer = await self.post("/v1/customers", email=f"{number}@example.test")
        card = {"card[object]": "card", "card[number]": "4242424242424242", "card[exp_month]": "12"}
        token = await self.post("/v1/tokens", **card, **{"card[exp_year]": "2030", "card[cvc]": "123"})
        await self.post(f"/v1/customers/{customer['id']}/sources", source=token["id"])
        product = await self.post("/v1/products", name=f"product {number}", type="service")
        plan = await self.post(
            "/v1/plans", amount="1000", currency="eur", interval="month", product=product["id"], id=f"plan-{number}"
        )
        await self.post("/v1/subscriptions", customer=customer["id"], **{"items[0][plan]": plan["id"]})
        await self.post("/v1/invoiceitems", customer=customer["id"], amount="250", currency="eur")
        await self.post("/v1/invoices", customer=customer["id"])
        await self.post("/v1/payouts", amount="500", currency="eur")

    async def events(self) -> list[dict[str, Any]]:
        """Return every event in its list."""
        found: list[dict[str, Any]] = []
        while True:
            after = {"starting_after": found[-1]["id"]} if found else {}
            page = (await self.client.get("/v1/events", params={"limit": 100, **after})).json()
            found += page["data"]
            if not page["has_more"]:
                return found


async def test_every_event_of_localstripe_arrives_despite_a_kill(
    localstripe: str, store_url: str, tmp_path: Path
) -> None:
    shop = Shop(localstripe)
    async with shop.client:
        await _lose_and_recover(shop, localstripe, store_url, tmp_path)


async def _lose_and_recover(shop: Shop, localstripe: str, store_url: str, tmp_path: Path) -> None:
    await until(shop.is_up)
    await shop.trade(0)  # before our time: neither missed nor owed
    await asyncio.sleep(2.1)
    async with Consumer().serve() as consumer:
        daemon = Gapless(
            tmp_path,
            store_url,
            localstripe,
            consumer,
            options="livemode = false",
            environment={"STRIPE_API_KEY": KEY},
            grace="5s",  # its webhooks come a second late
        )
        async with running(daemon):
            before = {event["id"] for event in await shop.events()}
            await shop.post("/_config/webhooks/gapless", url=daemon.public, secret=WEBHOOK_SECRET)
            await shop.trade(1)
            pushed = {event["id"] for event in await shop.events()} - before
            await until(lambda: pushed <= consumer.ids)
            await daemon.kill()
            await shop.trade(2)
            await shop.trade(3)
            await asyncio.sleep(1.5)  # localstripe sends each webhook once, a second after its event
            lost = {event["id"] for event in await shop.events()} - before - pushed
            await daemon.start()
            await shop.trade(4)
            everything = {event["id"] for event in await shop.events()} - before
            await until(lambda: everything <= consumer.ids)
            await daemon.end()
            await daemon.start()

            async def are_judged() -> bool:
                return await daemon.missed() >= len(lost)

            await until(are_judged)
            assert len(lost) > 10
            assert await daemon.ledger_ids() == everything
            assert consumer.ids == everything
            assert await daemon.missed() == len(lost)
            assert consumer.changed_ids == {}
