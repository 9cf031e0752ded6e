"""A campaign of mutated genuine webhooks against the real application, for every kind of provider.

Whatever is changed, the answer is no 5xx, and nothing is recorded that was not verified. `GAPLESS_FUZZ` is the number
of requests, and `GAPLESS_FUZZ_SEED` chooses them; the default is short.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
from sqlalchemy import func, select

from gapless.bootstrap.runtime import make_writer
from gapless.daemon.process import receive_options
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources
from gapless.ledger import sources as ledger_sources
from gapless.ledger.engine import Store, open_store
from gapless.ledger.recorder import Recorder
from gapless.ledger.signed_messages import MOST
from gapless.ledger.tables import EVENT, METADATA, QUARANTINE
from gapless.metrics import Metrics
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import build_app
from gapless.runtime import Runtime
from gapless.settings import QuarantineSettings, Settings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenarios

REQUESTS = int(os.environ.get("GAPLESS_FUZZ", "1300"))
SEED = int(os.environ.get("GAPLESS_FUZZ_SEED", "1"))
FIXTURES = Path(__file__).parents[2] / "fixtures"
SCENARIOS = [each for kind in registry.kinds() for each in load_scenarios(FIXTURES / kind)]
SIGNS_BODY = [each.provider().capabilities.signs_body for each in SCENARIOS]
EVENTS = 2
"""The most events of one webhook of the fixtures."""
UNAVAILABLE = 503
PATIENT = timedelta(minutes=5)
SNS_SIGNED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
Header = tuple[bytes, bytes]
ODD = (
    b"", b"\x00", b"\xff\xfe", b"=", b",", b";", b" ", b".", b"v1=", b"t=", b"t=9" + b"9" * 400, b"sha256=", b"Basic ",
    b"-1", b"1e999", b"%00", b"../", b"\\ud800", b"NaN", b"A" * 300, b"v1," * 40, b"v1a,YQ== " * 40, b"v1=a," * 80,
)  # fmt: skip
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"[" * 3000,
    b'{"a":' * 2000,
    b'"\\ud800"',
    b"\xff" * 50,
    b"9" * 5000,
    b"payload=%7B",
)


@dataclass
class Draw:
    """One mutated request, and what of it was changed."""

    random: random.Random
    headers: list[Header]
    body: bytes
    changed: set[bytes] = field(default_factory=set)
    """Names of the changed headers; b"body" for the body."""

    def mutate(self) -> None:
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            self.random.choice((self.change_body, self.change_header, self.change_header, self.drop, self.repeat))()

    def change_body(self) -> None:
        self.body = self.random.choice((self.random.choice(BODIES), self.changed_bytes(self.body)))
        self.changed.add(b"body")

    def change_header(self) -> None:
        at = self.random.randrange(len(self.headers))
        name, value = self.headers[at]
        self.headers[at] = (name, self.changed_bytes(value))
        self.changed.add(name)

    def drop(self) -> None:
        if len(self.headers) > 1:
            self.changed.add(self.headers.pop(self.random.randrange(len(self.headers)))[0])

    def repeat(self) -> None:
        name, value = self.random.choice(self.headers)
        self.headers.append((name, self.random.choice((value, self.changed_bytes(value)))))
        self.changed.add(name)

    def changed_bytes(self, value: bytes) -> bytes:
        at, end = sorted(self.random.randrange(len(value) + 1) for _ in range(2))
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: value[:at] + bytes((self.random.randrange(256),)) + value[at + 1 :],
            lambda: value[:at],
            lambda: value[:at] + value[end:],
            lambda: value[:at] + self.random.choice(ODD) + value[at:],
            lambda: value[:end] + value[at:end] * self.random.choice((1, 20)) + value[end:],
            value.swapcase,
            lambda: self.random.choice(ODD),
        )
        return self.random.choice(ways)()


async def answered(app: Any, path: str, headers: list[Header], body: bytes, query: bytes = b"") -> int:
    """Return the status that the application answers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "", "headers": headers,
        "client": ("198.51.100.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])


def vendor(request: httpx.Request) -> httpx.Response:
    """Serve the certificates and keys of the scenarios."""
    asked = json.loads(request.content).get("key_id", "") if request.content else ""
    url = f"{request.url} {asked}".strip()
    body = next((each.evidence[url] for each in SCENARIOS if url in each.evidence), None)
    return httpx.Response(404) if body is None else httpx.Response(200, content=body)


async def campaign(store: Store) -> Counter[int]:
    """Send the mutated webhooks; return how often each status was answered."""
    now, known = [SCENARIOS[0].now], []
    for number, scenario in enumerate(SCENARIOS):
        start = scenario.now - timedelta(days=1)
        row = (f"s{number}", scenario.kind, "hybrid", start, scenario.now)
        source_id = await store.write(lambda c, row=row: ledger_sources.register_source(c, *row))
        known.append(Source(id=source_id, name=row[0], provider=scenario.provider(), mode=Mode.HYBRID, start=start))
    settings = Settings(quarantine=QuarantineSettings(max_rows=200, per_minute=10_000))
    metrics = Metrics("test")
    writer = make_writer(settings.public, store, Recorder(0, build_route([])), metrics)
    runtime = Runtime(store=store, writer=writer, clock=lambda: now[0], metrics=metrics, sources=Sources(known))
    statuses: Counter[int] = Counter()
    async with httpx.AsyncClient(transport=httpx.MockTransport(vendor)) as client:
        receiver = make_receiver(
            runtime, client=client, options=replace(receive_options(settings), answer_within=PATIENT)
        )
        tasks = [asyncio.create_task(writer.run()), asyncio.create_task(receiver.quarantine.run())]
        app, drawn = build_app(receiver), random.Random(SEED)
        for at in range(REQUESTS):
            number = at % len(SCENARIOS)
            now[0] = SCENARIOS[number].now
            statuses[await send_one(app, number, drawn)] += 1
        for number, scenario in enumerate(SCENARIOS):
            now[0] = scenario.now
            genuine = list(scenario.webhook.headers)
            sent = scenario.webhook
            assert await answered(app, f"/webhooks/s{number}", genuine, sent.body, sent.query) in (200, 202, 204)
        await writer.submit_idle(lambda _: None)
        tasks[1].cancel()
        writer.close()
        await tasks[0]
    return statuses


def signed(scenario: Scenario, body: bytes) -> object:
    """Return what the signature covers of a body: all of it, but for SNS, Braintree (values) and Twilio (a set)."""
    if scenario.name == "twilio":
        return set(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    if scenario.kind == "braintree":
        return dict(parse_qsl(body.decode(errors="replace"))).get("bt_payload", "").strip()
    if scenario.kind != "sns":
        return body
    members = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    return sorted((name, value) for name, value in members if name in SNS_SIGNED)


async def send_one(app: Any, number: int, drawn: random.Random) -> int:
    scenario = SCENARIOS[number]
    draw = Draw(drawn, list(scenario.webhook.headers), scenario.webhook.body)
    draw.mutate()
    status = await answered(app, f"/webhooks/s{number}", draw.headers, draw.body, scenario.webhook.query)
    asked_elsewhere = b"paypal-cert-url" in draw.changed
    assert status < 500 or (status == UNAVAILABLE and asked_elsewhere), (scenario.name, draw.headers, draw.body[:200])
    if status < 300 and SIGNS_BODY[number]:
        assert signed(scenario, draw.body) == signed(scenario, scenario.webhook.body), (scenario.name, draw.body[:200])
    return status


def test_no_mutated_webhook_causes_a_5xx_or_is_recorded_unverified(tmp_path: Path) -> None:
    asyncio.run(check(tmp_path))


async def check(folder: Path) -> None:
    store = open_store(f"sqlite:///{folder}/ledger.db")
    try:
        await store.write(METADATA.create_all)
        statuses = await campaign(store)
        assert statuses.total() == REQUESTS
        assert statuses[401] > REQUESTS // 4
        recorded = await counted(store, select(EVENT.c.source_id, func.count()).group_by(EVENT.c.source_id))
        for source_id, scenario in enumerate(SCENARIOS, 1):
            known = scenario.provider().capabilities
            most = MOST if known.identity_unsigned else max(EVENTS, len(scenario.expected))
            assert not known.signs_body or recorded[source_id] <= most, scenario.name
        whole = select(QUARANTINE.c.source_id, func.count()).where(QUARANTINE.c.purged_us.is_(None))
        kept = await counted(store, whole.group_by(QUARANTINE.c.source_id))
        assert max(kept.values()) <= 200
    finally:
        await store.close()


async def counted(store: Store, query: Any) -> dict[int, int]:
    return dict(await store.read(lambda c: [tuple(row) for row in c.execute(query)]))
