"""Pausing a destination by the API: who may, and where it shows."""

from typing import Any

import pytest

from gapless.console.auth import Access
from gapless.ledger import audit_log
from gapless.operations.registry import perform
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("a-long-token-0123"))
PAUSE, RESUME = "/api/operations/destination.pause", "/api/operations/destination.resume"


async def test_a_pause_by_api_shows_in_status_metrics_page_and_log(console: Any, listen: Any) -> None:
    await console.add_destination("shop")
    headers = {}
    for name, role in (("see", "viewer"), ("ann", "operator")):
        made = await perform(console.context, "token.create", {"name": name, "role": role, "expires": None})
        headers[name] = {"authorization": f"Bearer {made['token']}"}
    args = {"destination": "shop", "reason": "upgrade"}
    async with listen(access=WIDE) as client:
        assert (await client.post(PAUSE, json=args, headers=headers["see"])).status_code == 403
        assert (await client.post(PAUSE, json={"destination": "shop"}, headers=headers["ann"])).status_code == 400
        assert (await client.post(PAUSE, json={**args, "destination": "x"}, headers=headers["ann"])).status_code == 400
        done = await client.post(PAUSE, json=args, headers=headers["ann"])
        assert (done.status_code, done.json()) == (200, {"destination": "shop", "paused": True})
        assert (await client.post(PAUSE, json=args, headers=headers["ann"])).status_code == 400

        status = (await client.get("/api/status", headers=headers["see"])).json()
        (shop,), (trouble,) = (
            status["destinations"],
            [each for each in status["troubles"] if each["kind"] == "destination_paused"],
        )
        assert (shop["paused"]["by"], shop["paused"]["reason"]) == ("ann", "upgrade")
        assert (trouble["severity"], trouble["since"]) == ("in_hand", shop["paused"]["since"])
        assert "Paused by ann (upgrade)" in trouble["text"]
        metrics = (await client.get("/metrics", headers=headers["see"])).text
        assert 'gapless_destination_paused{destination="shop"} 1.0' in metrics
        assert "paused</span>" in (await client.get("/", headers=headers["see"])).text

        assert (await client.post(RESUME, json={"destination": "shop"}, headers=headers["ann"])).status_code == 200
        assert (await client.post(RESUME, json={"destination": "shop"}, headers=headers["ann"])).status_code == 400
        metrics = (await client.get("/metrics", headers=headers["see"])).text
        assert 'gapless_destination_paused{destination="shop"} 0.0' in metrics
    rows = await console.context.read(audit_log.rows)
    assert [(row["actor"], row["action"], row["reason"]) for row in rows if row["subject"] == "shop"] == [
        ("ann", "destination.pause", "upgrade"),
        ("ann", "destination.resume", None),
    ]
    assert len(console.woken) == 2
