"""`gapless source handshake` with a real daemon: the vendor's secret is shown to the operator who waits, once."""

import asyncio
import tomllib
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from outside import Gapless, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SECRET = "secret_notionMadeUpToken0123456789"
FIXTURES = Path(__file__).parents[1] / "fixtures/rest_list/notion"
SOURCE = """
[[source]]
name = "notion"
provider = "notion"
"""


@dataclass
class GaplessForNotion(Gapless):
    @property
    def config(self) -> Path:
        self.options = SOURCE
        return super().config

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "NOTION_VERIFICATION_TOKEN": "not-known-yet-0123456789"}


async def test_the_secret_of_notion_is_shown_once_to_whoever_waits(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    gapless = GaplessForNotion(folder=tmp_path, store_url=f"sqlite:///{ledger}", api="http://127.0.0.1:9")
    url = f"http://127.0.0.1:{gapless.public_port}/webhooks/notion"
    handshake = tomllib.loads((FIXTURES / "scenario.toml").read_text())["handshake"][0]
    async with running(gapless), httpx.AsyncClient(trust_env=False) as client:

        async def is_taken() -> bool:
            return (await client.post(url, content=handshake["body"])).status_code == 200

        assert not await is_taken()
        waiting = asyncio.create_task(gapless.call("source", "handshake", "notion", "--for", "60s"))
        await until(is_taken, every_s=2.5)
        code, shown, said = await waiting
        assert (code, shown.strip()) == (0, SECRET), said
        assert "shown no more" in said
        assert not await is_taken()
        code, shown, said = await gapless.call("source", "handshake", "notion", "--for", "1s")
        assert (code, shown) == (1, "")
        assert "no handshake came" in said
        code, _, said = await gapless.call("source", "handshake", "stripe-live", "--for", "1s")
        assert code != 0
        assert "tells no secret" in said
        assert await gapless.ledger_ids() == set()
        _, log, _ = await gapless.call("log", "--json")
    assert '"action":"source.handshake"' in log
    assert SECRET not in log + gapless.log.read_text()
    assert not holds(tmp_path, SECRET.encode())


def holds(folder: Path, text: bytes) -> bool:
    """Whether a file of the ledger has it."""
    return any(text in path.read_bytes() for path in folder.glob("ledger.db*"))
