"""All sample payloads of @octokit/webhooks-examples, through the real receiver and out of the ledger again."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn
from sqlalchemy import select

from gapless.bootstrap.runtime import make_writer
from gapless.daemon.process import receive_options
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Sources, system_clock
from gapless.ledger import sources
from gapless.ledger.engine import Store
from gapless.ledger.recorder import Recorder
from gapless.ledger.tables import EVENT, PAYLOAD
from gapless.metrics import Metrics
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import SERVING, build_app
from gapless.runtime import Runtime
from gapless.settings import PublicSettings, Settings
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.signatures import hmac_sha256_hex
from gapless_reconcilers.providers.github import GitHub, GitHubOptions

pytestmark = pytest.mark.anyio
SECRET = "s3cret"
PATIENT = timedelta(minutes=5)


async def test_every_sample_payload_comes_out_of_the_ledger_byte_for_byte(store: Store, node_modules: Path) -> None:
    index = node_modules / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
    samples = [(each["name"], example) for each in json.loads(index.read_text()) for example in each["examples"]]
    assert len(samples) > 300
    bodies = {f"g-{number}": json.dumps(example).encode() for number, (_, example) in enumerate(samples)}
    provider = GitHub(
        GitHubOptions(token=Secret("x"), webhook_secret=(Secret(SECRET),), repository="acme/shop", hook_id=7)
    )
    now = system_clock()
    source_id = await store.write(lambda c: sources.register_source(c, "acme", "github", "hybrid", now, now))
    source = Source(id=source_id, name="acme", provider=provider, mode=Mode.HYBRID, start=now)
    metrics = Metrics("test")
    writer = make_writer(PublicSettings(), store, Recorder(0, build_route([])), metrics)
    runtime = Runtime(store=store, writer=writer, clock=system_clock, metrics=metrics, sources=Sources([source]))
    receiver = make_receiver(runtime, options=replace(receive_options(Settings()), answer_within=PATIENT))
    server = uvicorn.Server(uvicorn.Config(build_app(receiver), host="127.0.0.1", port=0, **SERVING))
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        serving = group.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/webhooks/acme"
        async with httpx.AsyncClient(timeout=60) as client:
            for (name, _), (guid, body) in zip(samples, bodies.items(), strict=True):
                headers = {
                    "X-Hub-Signature-256": "sha256=" + hmac_sha256_hex(SECRET.encode(), body).decode(),
                    "X-GitHub-Event": name,
                    "X-GitHub-Delivery": guid,
                    "X-GitHub-Hook-ID": "7",
                }
                answer = await client.post(url, content=body, headers=headers)
                assert answer.status_code == 200, (name, answer.text)
        server.should_exit = True
        await serving
        writer.close()
    query = select(EVENT.c.key, EVENT.c.type, PAYLOAD.c.body).join(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    rows = await store.read(lambda c: c.execute(query).all())
    assert {row.key.removeprefix("7:"): row.body for row in rows} == bodies
    assert {row.type.partition(".")[0] for row in rows} == {name for name, _ in samples}
