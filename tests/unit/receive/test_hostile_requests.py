"""Whatever a stranger sends, signed or not, the application answers 2xx or 4xx, never 5xx, and never raises."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from gapless.bootstrap.runtime import make_writer
from gapless.daemon.process import receive_options
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources
from gapless.ledger import sources as ledger_sources
from gapless.ledger.engine import open_store
from gapless.ledger.recorder import Recorder
from gapless.ledger.tables import METADATA
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import build_app
from gapless.runtime import Runtime
from gapless.settings import PublicSettings, Settings
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LIMIT = 4_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=700) | JSON,
        "type": st.text(max_size=20) | JSON,
        "created": st.integers(-(10**20), 10**20) | JSON,
        "livemode": st.booleans() | JSON,
        "data": st.fixed_dictionaries({"object": st.fixed_dictionaries({"id": JSON})}) | JSON,
        "account": st.text(max_size=20) | JSON,
    },
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode(errors="surrogatepass")


BODIES = st.binary(max_size=LIMIT + 100) | JSON.map(encoded) | EVENTS.map(encoded)
NAMES = st.sampled_from([b"stripe-signature", b"content-length", b"host", b"content-type"])
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=80)), max_size=5)


class Loop:
    """The application on a loop of its own, with a real store behind it."""

    def __init__(self, path: Path) -> None:
        self.runner = asyncio.Runner()
        self.app, self.writer, self.store = self.runner.run(self._start(path))

    async def _start(self, path: Path) -> tuple[Litestar, Writer, Any]:
        store = open_store(f"sqlite:///{path}/ledger.db")
        await store.write(METADATA.create_all)
        start = NOW - timedelta(days=1)
        source_id = await store.write(
            lambda c: ledger_sources.register_source(c, "acme", "stripe", "hybrid", start, NOW)
        )
        options = StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False)
        source = Source(id=source_id, name="acme", provider=Stripe(options), mode=Mode.HYBRID, start=start)
        metrics = Metrics("test")
        limited = Settings(public=PublicSettings(body_limit=LIMIT))
        writer = make_writer(limited.public, store, Recorder(0, build_route([])), metrics)
        runtime = Runtime(store=store, writer=writer, clock=lambda: NOW, metrics=metrics, sources=Sources([source]))
        receiver = make_receiver(runtime, options=receive_options(limited))
        self.tasks = [asyncio.create_task(writer.run()), asyncio.create_task(receiver.quarantine.run())]
        return build_app(receiver), writer, store

    def send(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], parts: list[bytes], *, cut: bool
    ) -> list[Any]:
        return self.runner.run(self._send(method, path, headers, parts, cut=cut))

    async def _send(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], parts: list[bytes], *, cut: bool
    ) -> list[Any]:
        last = len(parts) - 1
        messages = [
            {"type": "http.request", "body": part, "more_body": cut or n < last} for n, part in enumerate(parts)
        ]
        messages += [{"type": "http.disconnect"}]
        waiting, sent = iter(messages), []

        async def receive() -> Any:
            return next(waiting)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(errors="replace"), "query_string": b"", "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        await self.app(scope, receive, send)  # type: ignore[arg-type]
        return sent

    async def stop(self) -> None:
        self.tasks[1].cancel()
        self.writer.close()
        await self.tasks[0]
        await self.store.close()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    loop = Loop(tmp_path_factory.mktemp("hostile"))
    yield loop
    loop.runner.run(loop.stop())
    loop.runner.close()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES, headers=HEADERS, signed=st.booleans(), pieces=st.integers(1, 4), cut=st.booleans())
def test_no_request_to_a_source_causes_a_5xx(
    loop: Loop, body: bytes, headers: list[tuple[bytes, bytes]], *, signed: bool, pieces: int, cut: bool
) -> None:
    if signed:
        at = int(NOW.timestamp())
        digest = hmac.new(b"whsec_1", b"%d.%b" % (at, body), hashlib.sha256).hexdigest().encode()
        headers = [pair for pair in headers if pair[0] != b"stripe-signature"] + [
            (b"stripe-signature", b"t=%d,v1=%b" % (at, digest))
        ]
    size = max(1, len(body) // pieces)
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    start, *rest = loop.send("POST", "/webhooks/acme", headers, parts, cut=cut)
    assert start["status"] == 200 or 400 <= start["status"] < 500
    assert start["status"] != 200 or (signed and not cut and len(body) <= LIMIT)
    assert [message["type"] for message in rest] == ["http.response.body"]


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "TRACE", "x"]), path=st.text(max_size=30).map("/".__add__)
)
def test_no_path_and_no_method_causes_a_5xx(loop: Loop, method: str, path: str) -> None:
    sent = loop.send(method, path, [], [b""], cut=False)
    assert sent[0]["status"] in (200, 401, 404, 405)
