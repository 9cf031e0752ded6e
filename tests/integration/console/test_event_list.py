"""`gapless event list` finds what the page and the API find."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from gapless.cli.main import main
from gapless.domain import Via
from gapless.ledger.tables import EVENT

pytestmark = pytest.mark.anyio


async def test_the_command_finds_what_the_api_finds(console: Any, listen: Any, store_url: str, tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text('[store]\nurl_env = "STORE_URL"\n')
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1", "odd_1", ago=timedelta(hours=2))
    await console.record(Via.LIST, "evt_2", ago=timedelta(hours=1))
    change = update(EVENT).where(EVENT.c.key == "odd_1").values(type="charge.failed", object_key="in_1", livemode=True)
    await console.context.runtime.write(lambda c: c.execute(change).rowcount)
    async with listen() as client:
        for asked, wanted in (
            ({}, ["evt_2", "odd_1", "evt_1"]),
            ({"type": "invoice.*"}, ["evt_2", "evt_1"]),
            ({"prefix": "evt_"}, ["evt_2", "evt_1"]),
            ({"object": "in_1"}, ["odd_1"]),
            ({"mode": "live"}, ["odd_1"]),
            ({"state": "pending", "via": "list"}, ["evt_2"]),
            ({"since": "2026-11-20T11:00:00Z"}, ["evt_2"]),
            ({"until": "2026-11-20T11:00:00Z", "source": "acme"}, ["odd_1", "evt_1"]),
        ):
            found = (await client.get("/api/v1/events", params=asked)).json()["items"]
            assert [each["key"] for each in found] == wanted, asked
            options = [word for name, value in asked.items() for word in (f"--{name}", value)]
            call = ["--config", str(tmp_path / "gapless.toml"), "event", "list", "--json", *options]
            done = await asyncio.to_thread(CliRunner().invoke, main, call, env={"STORE_URL": store_url})
            assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == wanted, (asked, done.output)
