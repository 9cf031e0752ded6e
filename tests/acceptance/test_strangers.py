"""Strangers at both listeners of a real daemon: nobody is shut out, nothing grows, and nothing is recorded."""

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from dawdlers import Told, descriptors, fuzz, rss_kb
from outside import PROGRAM, WEBHOOK_SECRET, Gapless, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DESCRIPTORS = 400
ENDLESS = (
    b"GET / HTTP/1.1\r\na: ",
    b"POST /webhooks/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: ",
)
MANY = int(os.environ.get("GAPLESS_FUZZ", "1500"))
"""Requests of the fuzz test. `GAPLESS_FUZZ=1000000` for the long form."""
SEED = int(os.environ.get("GAPLESS_FUZZ_SEED", "1"))


@dataclass
class FewDescriptors(Gapless):
    """A daemon that may open few files."""

    async def spawn(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            command = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", PROGRAM, "--config", str(self.config))
            self.process = await asyncio.create_subprocess_exec(*command, "serve", env=self.env, stderr=log)
        return self.process


def daemon(folder: Path) -> FewDescriptors:
    return FewDescriptors(folder=folder, store_url=f"sqlite:///{folder / 'ledger.db'}", api="http://127.0.0.1:9")


def pid_of(gapless: Gapless) -> int:
    assert gapless.process is not None
    return gapless.process.pid


async def post(gapless: Gapless, key: str) -> int:
    """Send a genuine webhook on a connection of its own; return the status."""
    event = {"id": key, "object": "event", "type": "invoice.paid", "created": int(time.time()), "livemode": True,
             "data": {"object": {"id": "in_1", "object": "invoice"}}}  # fmt: skip
    body, sent_at = json.dumps(event).encode(), int(time.time())
    digest = hmac.new(WEBHOOK_SECRET.encode(), b"%d.%b" % (sent_at, body), hashlib.sha256).hexdigest()
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        headers = {"stripe-signature": f"t={sent_at},v1={digest}"}
        return (await client.post(gapless.public, content=body, headers=headers)).status_code


async def status_of(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return (await client.get(url)).status_code


async def test_more_idle_connections_than_descriptors_shut_nobody_out(tmp_path: Path) -> None:
    async with running(daemon(tmp_path)) as gapless:
        ports = (gapless.public_port, gapless.private_port)
        held = [await asyncio.open_connection("127.0.0.1", ports[n % 2]) for n in range(2 * DESCRIPTORS)]
        assert [await post(gapless, f"evt_{n}") for n in range(3)] == [200] * 3
        assert await status_of(f"{gapless.private}/readyz") == 200
        assert descriptors(pid_of(gapless)) < DESCRIPTORS
        closed = (await gapless.metrics())["gapless_connections_closed_total"]
        for listener in "public", "private":
            assert closed[("listener", listener), ("reason", "gave_way")] > 100
        for _, writer in held:
            writer.transport.abort()
        assert await gapless.end() == 0
    lines = [line for line in gapless.log.read_text().splitlines() if "connections_closed" in line]
    assert len(lines) <= 4
    logged: Counter[str] = Counter()
    for line in map(json.loads, lines):
        logged[line["listener"]] += line["reasons"]["gave_way"]
    assert logged == {each: closed[("listener", each), ("reason", "gave_way")] for each in ("public", "private")}


async def test_one_connection_cannot_fill_the_memory_or_the_log(tmp_path: Path) -> None:
    async with running(daemon(tmp_path)) as gapless:
        before = rss_kb(pid_of(gapless))
        for port in (gapless.public_port, gapless.private_port):
            for begin in (
                b"GET / HTTP/1.1\r\na: ",
                b"POST /webhooks/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: ",
            ):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begin)
                with suppress(ConnectionError):
                    for _ in range(60):
                        writer.write(b"v" * 1_000_000)
                        await writer.drain()
                writer.transport.abort()
            for _ in range(50):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"nonsense\r\n\r\n")
                assert (await reader.readuntil(b"\r\n")).split()[1] == b"400"
                writer.transport.abort()
        assert rss_kb(pid_of(gapless)) - before < 30_000
        assert await status_of(f"{gapless.private}/readyz") == 200
        lines = gapless.log.read_text().splitlines()
        assert len([line for line in lines if "nvalid" in line or "connections_closed" in line]) <= 2


async def test_nearly_requests_are_answered_below_500_and_leave_nothing(tmp_path: Path) -> None:
    async with running(daemon(tmp_path)) as gapless:
        ports, told = (gapless.public_port, gapless.private_port), Told()
        pid, grown = pid_of(gapless), []
        for half in range(2):
            await asyncio.gather(*(fuzz(ports, MANY // 16, 1000 * SEED + 8 * half + n, told) for n in range(8)))
            grown.append(rss_kb(pid))
        assert {status // 100 for status in told.statuses} <= {1, 2, 3, 4}, told
        assert sum(told.statuses.values()) > told.requests // 3
        await until(lambda: descriptors(pid) < DESCRIPTORS // 2)
        assert grown[1] - grown[0] < 20_000, grown
        assert await gapless.ledger_ids() == set()
        assert await post(gapless, "evt_1") == 200
    assert "Traceback" not in gapless.log.read_text()
