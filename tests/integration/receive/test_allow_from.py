"""Webhooks are taken only from the networks of their source."""

from ipaddress import ip_network
from typing import Any

import pytest

from gapless.client_address import TrustedProxies

pytestmark = pytest.mark.anyio
VENDOR = {"acme": (ip_network("203.0.113.0/24"),)}
PROXY = TrustedProxies(networks=(ip_network("127.0.0.0/8"),), header="x-forwarded-for")


async def test_a_webhook_from_elsewhere_is_answered_403_and_counted(serve: Any) -> None:
    async with serve(allow_from=VENDOR) as setup:
        body = setup.event("evt_1")
        forged = {**setup.signature(body), "X-Forwarded-For": "203.0.113.9"}
        refused = await setup.client.post("/webhooks/acme", content=body, headers=forged)
        assert (refused.status_code, "not taken from your address" in refused.text) == (403, True)
        assert setup.counted("address_refused_total") == 1
        assert setup.counted("webhooks_total", source="acme", outcome="refused") == 1
        assert (await setup.events(), await setup.quarantined()) == ({}, [])


async def test_behind_a_trusted_proxy_its_header_tells_the_sender(serve: Any) -> None:
    async with serve(allow_from=VENDOR, trusted_proxies=PROXY) as setup:
        for number, (sender, status) in enumerate((("203.0.113.9", 200), ("198.51.100.1", 403), ("unknown", 403))):
            body = setup.event(f"evt_{number}")
            headers = {**setup.signature(body), "X-Forwarded-For": f"203.0.113.9, {sender}"}
            answer = await setup.client.post("/webhooks/acme", content=body, headers=headers)
            assert answer.status_code == status, sender
        assert await setup.events() == {"evt_0": 1}
