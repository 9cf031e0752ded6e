"""Every kind of secret is changed while webhooks come in, in a real process: none is refused, and nothing is lost."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from keys import FIRST, SECOND, open_sealed
from outside import CONFIG, Consumer, Gapless, running, until
from sqlalchemy import Connection, func, select
from standardwebhooks import Webhook, WebhookVerificationError

from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Via
from gapless.ledger import events, streams
from gapless.ledger import sources as ledger_sources
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.tables import EVENT, PAYLOAD
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
OLD = {
    "api": "sk_live_old", "webhooks": "whsec_old", "consumer": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "private": "a-private-token-of-the-old-0123", "metrics": "a-metrics-token-of-the-old-0123",
    "receipts": "a-consumer-token-of-the-old-012", "keys": FIRST,
}  # fmt: skip
NEW = {
    "api": "sk_live_new", "webhooks": "whsec_new", "consumer": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "private": "a-private-token-of-the-new-4567", "metrics": "a-metrics-token-of-the-new-4567",
    "receipts": "a-consumer-token-of-the-new-456", "keys": SECOND,
}  # fmt: skip
DESTINATION = """
[[destination]]
name = "consumer"
url = "http://127.0.0.1:{port}/hook"
secret_file = "consumer"
allow = ["127.0.0.1"]
since = "2020-01-01"
"""


class ByFiles(Gapless):
    """A daemon that reads every secret from a file."""

    @property
    def config(self) -> Path:
        assert self.consumer is not None
        path = self.folder / "gapless.toml"
        text = CONFIG.format(
            public=self.public_port, private=self.private_port, api=self.api, min_free="1MB", grace="1s", source="",
            options="", destination=DESTINATION.format(port=self.consumer.port),
        )  # fmt: skip
        text = text.replace('api_key_env = "STRIPE_API_KEY"', 'api_key_file = "api"')
        text = text.replace('webhook_secret_env = "STRIPE_WEBHOOK_SECRET"', 'webhook_secret_file = "webhooks"')
        tokens = 'token_file = "private"\nmetrics_token_file = "metrics"\nconsumer_token_file = "receipts"'
        text = text.replace("[log]", f'{tokens}\n[encryption]\nkeys_file = "keys"\n[log]')
        path.write_text(text)
        return path

    def put(self, name: str, *lines: str) -> None:
        """Replace the file of a secret, as a secret store does."""
        part = self.folder / f".{name}"
        part.write_text("\n".join(lines))
        part.replace(self.folder / name)

    async def said(self, words: str, times: int = 1) -> None:
        """Wait until the log has said it so often."""
        await until(lambda: self.log.read_text().count(words) >= times)

    async def status(self, path: str, token: str, **request: object) -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            headers = {"authorization": f"Bearer {token}"}
            method = "POST" if request else "GET"
            return (await client.request(method, self.private + path, headers=headers, **request)).status_code  # type: ignore[arg-type]


@dataclass
class Verifying(Consumer):
    """A consumer that refuses what none of its secrets verifies, and notes which one did."""

    secrets: list[str] = field(default_factory=lambda: [OLD["consumer"]])
    verified: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
                pairs = (line.partition(":") for line in head if ":" in line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                status = 200 if self.note(body, headers) else 401
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()

    def note(self, body: bytes, headers: Mapping[str, str]) -> bool:
        for secret in self.secrets:
            with suppress(WebhookVerificationError):
                Webhook(secret).verify(body, dict(headers))
                self.verified[secret] = self.verified.get(secret, 0) + 1
                self.got[self.key_of(body)].append(headers["idempotency-key"])
                return True
        self.refused += 1
        return False


@dataclass
class Vendor:
    """Sends webhooks all the time, signed with its secret of the moment; notes each status."""

    daemon: ByFiles
    secret: str = OLD["webhooks"]
    statuses: dict[str, int] = field(default_factory=dict)
    number: int = 0

    async def send(self, client: httpx.AsyncClient) -> None:
        self.number += 1
        key, at = f"evt_{self.number}", int(time.time())
        whole = {"id": key, "object": "event", "type": "invoice.paid", "created": at, "livemode": True}
        body = json.dumps({**whole, "api_version": "2025-01-27.acacia", "data": {"object": {"id": "in_1"}}}).encode()
        mac = hmac.new(self.secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
        headers = {"stripe-signature": f"t={at},v1={mac}"}
        self.statuses[key] = (await client.post(self.daemon.public, content=body, headers=headers)).status_code

    @asynccontextmanager
    async def pushing(self) -> AsyncIterator[None]:
        async def push() -> None:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                while not done.is_set():
                    await self.send(client)
                    await asyncio.sleep(0.02)

        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(push())
            try:
                yield
            finally:
                done.set()

    async def some_more(self) -> None:
        """Wait until more webhooks were answered."""
        count = len(self.statuses) + 20
        await until(lambda: len(self.statuses) >= count)


async def rotate_webhook_secret(daemon: ByFiles, vendor: Vendor) -> None:
    daemon.put("webhooks", NEW["webhooks"], OLD["webhooks"])
    await daemon.said("secret_replaced", 1)
    vendor.secret = NEW["webhooks"]
    await vendor.some_more()
    daemon.put("webhooks", NEW["webhooks"])
    await daemon.said("secret_replaced", 2)
    await vendor.some_more()


async def rotate_api_key(daemon: ByFiles, vendor: Vendor, fake: FakeProvider) -> None:
    """The vendor lets the old key live until the new one is in use."""
    vendor_format = fake.vendor_format
    assert isinstance(vendor_format, TwoKeys)
    vendor_format.keys.add(NEW["api"])
    daemon.put("api", NEW["api"])
    await daemon.said("secret_replaced", 3)
    await until(lambda: vendor_format.used[-1:] == [NEW["api"]])
    vendor_format.keys.remove(OLD["api"])
    await vendor.some_more()


async def rotate_destination_secret(daemon: ByFiles, vendor: Vendor, consumer: Verifying) -> None:
    """The handler takes both until the new one is in use."""
    consumer.secrets = [NEW["consumer"], OLD["consumer"]]
    daemon.put("consumer", NEW["consumer"])
    await until(lambda: consumer.verified.get(NEW["consumer"], 0) > 20)
    consumer.secrets = [NEW["consumer"]]
    await vendor.some_more()


async def rotate_tokens(daemon: ByFiles) -> None:
    receipt = {"json": {"destination": "consumer", "source": "stripe-live", "keys": ["evt_1"]}}
    uses: list[tuple[str, str, dict[str, object]]] = [
        ("private", "/api/status", {}), ("metrics", "/metrics", {}), ("receipts", "/api/v1/receipts", dict(receipt)),
    ]  # fmt: skip
    for name, path, request in uses:
        assert await daemon.status(path, OLD[name], **request) in (200, 400), name
        daemon.put(name, NEW[name])
        assert await daemon.status(path, NEW[name], **request) in (200, 400), name
        assert await daemon.status(path, OLD[name], **request) == 401, name
    made = [await daemon.call("token", "create", name, "--role", "viewer", "--expires", "1d") for name in ("a", "b")]
    first, second = (out.split()[-1] for _, out, _ in made)
    assert (await daemon.call("token", "revoke", "a"))[0] == 0
    assert (await daemon.status("/api/status", first), await daemon.status("/api/status", second)) == (401, 200)


async def rotate_encryption_key(daemon: ByFiles, vendor: Vendor) -> None:
    daemon.put("keys", SECOND, FIRST)
    await daemon.said("encryption_keys_replaced", 1)
    await vendor.some_more()
    code, out, err = await daemon.call("keys", "rotate")
    assert code == 0, out + err
    code, out, _ = await daemon.call("keys", "check")
    assert (code, "key first: no row needs it" in out) == (0, True), out
    daemon.put("keys", SECOND)
    await daemon.said("encryption_keys_replaced", 2)
    await vendor.some_more()


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoKeys(StripeFormat):
    """A vendor that may take several API keys; `used` has those that came."""

    keys: set[str] = field(default_factory=lambda: {OLD["api"]})
    used: list[str] = field(default_factory=list)

    def is_authorised(self, request: object) -> bool:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")  # type: ignore[attr-defined]
        self.used.append(key)
        return key in self.keys


async def sealed_by(daemon: ByFiles) -> set[str | None]:
    return await daemon.read(lambda connection: set(connection.execute(select(PAYLOAD.c.sealed_by)).scalars()))


AT, COUNT, AT_ONCE = datetime(2026, 11, 1, tzinfo=UTC), 6000, 500


def record(connection: Connection, first: int) -> None:
    """Record events in the clear, as a release without keys did."""
    row = ledger_sources.source_named(connection, "stripe-live")
    assert row is not None
    provider = Stripe(StripeOptions(api_key=Secret("k"), webhook_secret=(Secret("s"),)))
    source = Source(id=row["id"], name="stripe-live", provider=provider, mode=Mode.HYBRID, start=AT)
    stream_id = streams.streams(connection, row["id"])[0].id
    seen = [
        Sighting(
            source=source, stream_id=stream_id, via=Via.WEBHOOK, seen_us=1, body=body_of(number),
            headers="{}",
            event=RemoteEvent(key=f"evt_{number}", type="invoice.paid", occurred_at=AT, payload=body_of(number)),
        )
        for number in range(first, first + AT_ONCE)
    ]  # fmt: skip
    Recorder(0, build_route([])).record_webhooks(connection, [(each,) for each in seen])


def body_of(number: int) -> bytes:
    return b'{"id": "evt_%d", "padding": "%b"}' % (number, hashlib.sha512(b"%d" % number).hexdigest().encode() * 8)


def unopened(connection: Connection) -> list[int]:
    """Return the events whose payload is not what it was."""
    found = []
    for seq, key in connection.execute(select(EVENT.c.seq, EVENT.c.key)).all():
        payload = events.payload(connection, seq)
        if payload is None or payload[0] != body_of(int(key.removeprefix("evt_"))):
            found.append(seq)
    return found


async def count_sealed(daemon: Gapless) -> int:
    query = select(func.count()).where(PAYLOAD.c.sealed_by == "first", PAYLOAD.c.sealed_by.is_not(None))
    return await daemon.read(lambda connection: connection.execute(query).scalar_one())


async def test_a_rotation_survives_kill_9_of_everything(sqlite_url: str, tmp_path: Path) -> None:
    daemon = Gapless(tmp_path, sqlite_url, "http://127.0.0.1:1")
    store = await open_sealed(sqlite_url)
    await store.write(lambda c: ledger_sources.register_source(c, "stripe-live", "stripe", "hybrid", AT, AT))
    for first in range(0, COUNT, AT_ONCE):
        await store.write(record, first=first)
    await store.close()
    daemon.environment = {"GAPLESS_ENCRYPTION__KEYS": FIRST}
    async with running(daemon):
        rotating = asyncio.create_task(daemon.call("keys", "rotate"))
        await until(lambda: count_sealed(daemon), every_s=0.01)
        await daemon.kill()
        assert (await rotating)[0] == 3
        assert 0 < await count_sealed(daemon) < COUNT
        await daemon.start()
        code, out, err = await daemon.call("keys", "rotate")
        assert (code, await count_sealed(daemon)) == (0, COUNT), out + err
        await daemon.end()
    store = await open_sealed(sqlite_url, FIRST)
    assert await store.read(unopened) == []
    await store.close()


async def test_every_secret_is_rotated_under_load(sqlite_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(TwoKeys())
    async with Verifying().serve() as consumer, fake.serve() as api:
        assert isinstance(consumer, Verifying)
        daemon = ByFiles(tmp_path, sqlite_url, api, consumer)
        for name, secret in OLD.items():
            daemon.put(name, secret)
        async with running(daemon):
            vendor = Vendor(daemon)
            async with vendor.pushing():
                await vendor.some_more()
                await rotate_webhook_secret(daemon, vendor)
                await rotate_api_key(daemon, vendor, fake)
                await rotate_destination_secret(daemon, vendor, consumer)
                await rotate_tokens(daemon)
                await rotate_encryption_key(daemon, vendor)
            assert {key: status for key, status in vendor.statuses.items() if status != 200} == {}
            assert len(vendor.statuses) == vendor.number > 100
            await until(lambda: consumer.ids >= vendor.statuses.keys())
            assert await daemon.ledger_ids() >= vendor.statuses.keys()
            assert (consumer.refused, consumer.changed_ids) == (0, {})
            assert await sealed_by(daemon) == {"second"}
            await daemon.end()
        async with running(daemon):
            async with httpx.AsyncClient(trust_env=False) as client:
                await vendor.send(client)
            assert vendor.statuses[f"evt_{vendor.number}"] == 200
