"""What strangers send to a listener: connections that dawdle, and bytes that are nearly requests.

`python tests/support/dawdlers.py PORT KIND COUNT` is so many strangers of a kind, until it is killed; it prints a line
when they are there.
"""

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PATHS = (
    b"/healthz", b"/webhooks/stripe-live", b"/", b"/webhooks/", b"/readyz", b"/livez", b"/metrics", b"/api/v1/status",
    b"*", b"http://x/healthz", b"//", b"/%00", b"/..%2f", b"/healthz?a=%zz", b"/\xff", b"x:1",
)  # fmt: skip
METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"PRI", b"get", b"", b"G\x00T", b"SOURCE")
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.10", b"", b"HTTP/9.9", b"http/1.1")
HEADERS = (
    b"host: x", b"Host: [::1]:80", b"host: a b", b"content-length: 5", b"content-length: 5, 5", b"content-length: -1",
    b"content-length: 99999999999999999999", b"content-length: 0", b"content-length: +5", b"content-length: 5\t",
    b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked", b"transfer-encoding: chunked, x",
    b"transfer-encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"connection: close", b"connection: upgrade",
    b"connection: keep-alive", b"upgrade: websocket", b"upgrade: h2c", b"expect: 100-continue", b"expect: 200",
    b"authorization: Bearer x", b"authorization: \xff", b"stripe-signature: t=1,v1=00", b"x: " + b"v" * 5000,
    b" folded: 1", b"\ttab", b": empty", b"no colon", b"a\x00b: 1", b"a: \x00", b"a: 1\rb: 2",
    b"cookie: " + b"a=1;" * 90, b"x-forwarded-for: 127.0.0.1", b"origin: http://evil",
    b"content-type: application/json", b"te: trailers", b"content-encoding: gzip", b"range: bytes=0-",
    b"trailer: host", b"sec-websocket-key: x",
)  # fmt: skip
BODIES = (
    b"", b"12345", b'{"id":"evt_1"}', b"5\r\n12345\r\n0\r\n\r\n", b"0\r\n\r\n",
    b"5;a=b\r\n12345\r\n0\r\na: 1\r\n\r\n", b"fffffffffffffffff\r\nx", b"-5\r\nx", b"5\n12345\n0\n\n", b"x" * 3000,
    b"0\r\nhost: y\r\n" * 3,
)  # fmt: skip
ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" \r\n")


def near_request(dice: random.Random) -> bytes:
    """A request, or nearly one: every part is drawn by itself, and some bytes are changed afterwards."""
    end = dice.choice(ENDS)
    method, path, version = dice.choice(METHODS[:3]), dice.choice(PATHS[:2]), VERSIONS[0]
    if dice.random() < 0.4:
        method, path, version = dice.choice(METHODS), dice.choice(PATHS), dice.choice(VERSIONS)
    lines = [b" ".join((method, path, version)), HEADERS[0], *dice.choices(HEADERS, k=dice.randrange(6))]
    text = bytearray(end.join(lines) + end + end + dice.choice(BODIES))
    if dice.random() < 0.3:
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(text))
            change = dice.randrange(3)
            if change == 0:
                text[at] = dice.randrange(256)
            elif change == 1:
                del text[at : at + dice.randrange(1, 9)]
            else:
                text[at:at] = dice.randbytes(dice.randrange(1, 9))
            if not text:
                break
    return bytes(text)


IDLE, HALF_HEADS, ENDLESS, SLOW_BODIES, NEARLY = "idle", "half-heads", "endless", "slow-bodies", "nearly"
HEAD = b"POST /webhooks/stripe-live HTTP/1.1\r\nhost: x\r\n"
ADDRESSES = 6
"""The strangers have so many addresses."""
ENDLESS_SENDERS, NEARLY_SENDERS = 8, 4


@dataclass
class Told:
    """What came back."""

    requests: int = 0
    sent: int = 0
    statuses: dict[int, int] = field(default_factory=dict)


async def fuzz(ports: Sequence[int], count: int, seed: int, told: Told) -> None:
    """Send `count` nearly-requests to `ports`, several on a connection, in one piece or in many."""
    dice = random.Random(seed)
    while count > 0:
        some = min(count, dice.choice((1, 1, 2, 5)))
        count -= some
        await _exchange(dice, dice.choice(ports), [near_request(dice) for _ in range(some)], told)


async def _exchange(dice: random.Random, port: int, requests: Sequence[bytes], told: Told) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = b"".join(requests)
    told.requests += len(requests)
    told.sent += len(text)
    cut = dice.randrange(len(text) + 1) if dice.random() < 0.3 else len(text)
    with suppress(OSError):
        writer.write(text[:cut])
        await writer.drain()
        if text[cut:]:
            await asyncio.sleep(0.001)
            writer.write(text[cut:])
        writer.write_eof()
        async with asyncio.timeout(60):
            answers = await reader.read()
        _note(answers, told)
    writer.transport.abort()


def _note(answers: bytes, told: Told) -> None:
    for part in answers.split(b"HTTP/1.1 ")[1:]:
        status = int(part[:3])
        told.statuses[status] = told.statuses.get(status, 0) + 1


class Dawdlers:
    """Connections that begin something and never end it. One that is closed is opened again at once."""

    def __init__(self, port: int, *, count: int, begin: bytes, drip: bytes = b"", every_s: float = 1.0) -> None:
        self._port = port
        self._count = count
        self._begin = begin
        self._drip = drip
        self._every_s = every_s
        self.opened = 0

    async def run(self) -> None:
        """Dawdle until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        await asyncio.sleep(2 * number / self._count)
        while True:
            with suppress(OSError):
                address = (f"127.0.1.{1 + number % ADDRESSES}", 0)
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=address)
                self.opened += 1
                try:
                    writer.write(self._begin)
                    await self._dawdle(reader, writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(1.0)

    async def _dawdle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await reader.read(1 << 16)
            if self._drip:
                writer.write(self._drip)
                await writer.drain()


def rss_kb(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def descriptors(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def dawdle(port: int, kind: str, count: int) -> None:
    """Be strangers until killed."""
    if kind == NEARLY:
        told = Told()
        _say_ready()
        await asyncio.gather(*(fuzz([port], 10**9, seed, told) for seed in range(NEARLY_SENDERS)))
    begin, drip, every_s, most = {
        IDLE: (b"", b"", 5.0, count),
        HALF_HEADS: (HEAD, b"a: 1\r\n", 1.0, count),
        ENDLESS: (HEAD + b"a: ", b"v" * 65_536, 0.001, ENDLESS_SENDERS),
        SLOW_BODIES: (HEAD + b"content-length: 900000\r\n\r\n" + b"x" * 60_000, b"x" * 100, 1.0, count),
    }[kind]
    dawdlers = Dawdlers(port, count=most, begin=begin, drip=drip, every_s=every_s)
    running = asyncio.create_task(dawdlers.run())
    while dawdlers.opened < most // 2 and not running.done():
        await asyncio.sleep(0.05)
    _say_ready()
    await running


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(dawdle(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
