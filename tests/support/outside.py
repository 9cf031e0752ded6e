"""What a daemon meets outside: its own process, to be killed; a consumer; and the numbers that it shows."""

import asyncio
import json
import os
import socket
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select
from stream_server import stream_server

from gapless.ledger import Connection
from gapless.ledger.engine import open_store
from gapless.ledger.tables import EVENT

T = TypeVar("T")
PROGRAM = str(Path(sys.executable).parent / "gapless")
WEBHOOK_SECRET = "whsec_outside"
ENVIRONMENT = {
    "STRIPE_API_KEY": "sk_live_fake",
    "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "CONSUMER_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
BYTECODE = {name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ}
"""Where compiled modules are kept, so that no start of the program compiles them again."""


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(true: Callable[[], Any], *, within_s: float = 120.0, every_s: float = 0.1) -> None:
    """Return once `true()` is; fail after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        result = true()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within_s} s: {true}")
        await asyncio.sleep(every_s)


@dataclass
class Consumer:
    """Takes deliveries by HTTP: event id -> the idempotency key of each attempt. `answers` gives its status."""

    got: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    answers: Callable[[str], int] = lambda _key: 200
    port: int = 0

    @property
    def ids(self) -> set[str]:
        """The ids that came."""
        return set(self.got)

    @property
    def changed_ids(self) -> dict[str, list[str]]:
        """Events whose attempts did not all carry the same idempotency key."""
        return {key: marks for key, marks in self.got.items() if len(set(marks)) != 1}

    def key_of(self, body: bytes) -> str:
        """Return the id of the event that is delivered."""
        key: str = json.loads(body)["id"]
        return key

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
                pairs = (line.partition(":") for line in head if ":" in line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                key = self.key_of(body)
                self.got[key].append(headers["idempotency-key"])
                status = self.answers(key)
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Consumer"]:
        """Listen on a free port."""
        async with stream_server(self.handle) as self.port:
            yield self


CONFIG = """
[store]
url_env = "STORE_URL"
min_free = "{min_free}"
[public]
host = "127.0.0.1"
port = {public}
[private]
port = {private}
[log]
level = "info"
format = "json"
[[source]]
name = "stripe-live"
provider = "stripe"
every = "1s"
every_max = "2s"
grace = "{grace}"
lookback = "1m"
read_budget = {{ requests = 100000000, period = "1d" }}
requests_per_second = 200
{source}
[source.options]
api_base = "{api}"
api_key_env = "STRIPE_API_KEY"
webhook_secret_env = "STRIPE_WEBHOOK_SECRET"
{options}
{destination}
"""
DESTINATION = """
[[destination]]
name = "consumer"
url = "http://127.0.0.1:{port}/hook"
secret_env = "CONSUMER_SECRET"
allow = ["127.0.0.1"]
{since}
backoff_first = "200ms"
backoff_max = "2s"
max_attempts = 100
"""


@dataclass
class Gapless:
    """A daemon in a process of its own, on ports that it keeps over restarts."""

    folder: Path
    store_url: str
    api: str
    consumer: Consumer | None = None
    destinations: str = ""
    """Further destinations, as they stand in the configuration."""
    source: str = ""
    options: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    grace: str = "1s"
    min_free: str = "1MB"
    since: str = "2020-01-01"
    """From when on the consumer is owed; empty: from its first start on."""
    arguments: tuple[str, ...] = ()
    public_port: int = field(default_factory=free_port)
    private_port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def public(self) -> str:
        """Where webhooks go."""
        return f"http://127.0.0.1:{self.public_port}/webhooks/stripe-live"

    @property
    def private(self) -> str:
        """Where probes, metrics and the console are."""
        return f"http://127.0.0.1:{self.private_port}"

    @property
    def config(self) -> Path:
        """The configuration file, written anew: at once, because commands beside this call may be reading it."""
        since = f'since = "{self.since}"' if self.since else ""
        destination = DESTINATION.format(port=self.consumer.port, since=since) if self.consumer else ""
        destination += self.destinations
        path = self.folder / f"gapless-{self.public_port}.toml"
        part = path.with_suffix(f".{uuid.uuid4().hex}")
        part.write_text(
            CONFIG.format(
                public=self.public_port,
                private=self.private_port,
                api=self.api,
                source=self.source,
                options=self.options,
                destination=destination,
                min_free=self.min_free,
                grace=self.grace,
            )
        )
        return part.replace(path)

    @property
    def env(self) -> dict[str, str]:
        """The environment of every call."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "STORE_URL": self.store_url,
            **BYTECODE,
            **ENVIRONMENT,
            **self.environment,
        }

    @property
    def log(self) -> Path:
        """What the daemon said on stderr, over all its lives."""
        return self.folder / f"gapless-{self.public_port}.log"

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start the process."""
        with self.log.open("ab") as log:
            arguments = ("--config", str(self.config), "serve", *self.arguments)
            self.process = await asyncio.create_subprocess_exec(PROGRAM, *arguments, env=self.env, stderr=log)
        return self.process

    async def start(self) -> None:
        """Start the process and return when it is ready."""
        await self.spawn()
        await until(self.is_ready, every_s=0.05)

    async def is_ready(self) -> bool:
        """Whether it answers `/readyz`. Fails if it has ended by itself."""
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()[-4000:]
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # noqa: S501 - it reads no certificates
                return (await client.get(f"{self.private}/readyz")).is_success
        return False

    async def kill(self) -> None:
        """kill -9."""
        await self.end(SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, SIGSTOP and SIGCONT among them."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self, number: int = SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.signal(number)
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), 120)

    async def call(self, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        """Run a command with the same configuration: exit code, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "--config",
            str(self.config),
            *arguments,
            env=self.env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate((stdin or "").encode()), 120)
        return process.returncode or 0, out.decode(), err.decode()

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` finds in the ledger."""
        store = open_store(self.store_url)
        try:
            return await store.read(query)
        finally:
            await store.close()

    async def ledger_ids(self) -> set[str]:
        """The keys of all recorded events."""
        return await self.read(lambda connection: set(connection.execute(select(EVENT.c.key)).scalars()))

    async def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Every sample: name -> sorted labels -> value."""
        async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
            text = (await client.get(f"{self.private}/metrics")).text
        samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
        return samples

    async def missed(self) -> float:
        """gapless_missed_total over all causes."""
        return sum((await self.metrics())["gapless_missed_total"].values())


@asynccontextmanager
async def running(gapless: Gapless) -> AsyncIterator[Gapless]:
    """The daemon, started; ended with the block, however that ends."""
    try:
        await gapless.start()
        yield gapless
    finally:
        if gapless.process is not None and gapless.process.returncode is None:
            with suppress(ProcessLookupError):
                gapless.process.kill()
            await gapless.process.wait()
