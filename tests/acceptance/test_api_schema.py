"""What schemathesis generates from the OpenAPI document, against a real daemon: no 5xx, nothing beside the document."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from outside import WEBHOOK_SECRET, Consumer, Gapless, running, until
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gapless.console.api.document import make_document
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FEW = settings(
    max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)


def call_by_document(base: str, token: str) -> int:
    """Call every operation with some of what fits its schema, and some that does not; return how many calls it were."""
    document, calls = make_document(), [0]
    schema = schemathesis.openapi.from_dict(document)
    headers = {"authorization": f"Bearer {token}"}
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for path, item in document["paths"].items():
        for method in item:
            for mode in modes:
                strategy = schema[path][method.upper()].as_strategy(generation_mode=mode)

                @FEW
                @given(case=strategy)
                def each(case: Any) -> None:
                    calls[0] += 1
                    case.call_and_validate(base_url=base, headers=headers, timeout=30, checks=CHECKS)

                each()
    return calls[0]


async def test_no_call_is_answered_beside_the_document(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(tmp_path, store_url, api, consumer)
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        async with running(daemon):
            events = [fake.emit("invoice.paid") for _ in range(20)]
            await fake.settle()
            await until(lambda: {each.key for each in events} <= consumer.ids)
            code, out, err = await daemon.call("token", "create", "fuzz", "--role", "operator", "--expires", "1d")
            assert code == 0, err
            assert await asyncio.to_thread(call_by_document, daemon.private, out.strip()) > 100
            assert await daemon.is_ready()
