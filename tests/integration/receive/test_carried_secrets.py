"""A secret that a webhook carries is in the ledger nowhere, and what was refused for it can be told and released."""

import json
from base64 import b64encode
from typing import Any

import pytest
from declared import build, changed
from sqlalchemy import Connection, func, select

from gapless.ledger import quarantine as ledger
from gapless.ledger import sources
from gapless.ledger.tables import METADATA, PAYLOAD
from gapless.receive.diagnosis import diagnose
from gapless.receive.quarantine import Released, StillRefused, release_webhook, request_of
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.telegram import SIGNATURE_HEADER, Telegram, TelegramOptions

pytestmark = pytest.mark.anyio
KNOWN, UNKNOWN = "canary:known-secret", "canary:unknown-secret"
BODY = json.dumps({"id": "1", "update_id": 1, "kind": "paid", "at": 1795000000, "message": {"date": 1795000000}})


def declared(signature: dict[str, object]) -> Provider:
    """Return a provider of `rest_list` with that signature."""
    whole = changed("webhook.signature", signature)
    return build({**whole, "event": {"type": "kind", "time": "at", "time_format": "unix_s"}})


def telegram(*secrets: str) -> Provider:
    return Telegram(TelegramOptions(token=Secret("1:bot"), webhook_secret=tuple(map(Secret, secrets))))


def basic(*secrets: str) -> Provider:
    return declared({"scheme": "basic", "secret": [Secret(each) for each in secrets]})


def token(*secrets: str) -> Provider:
    return declared({"scheme": "token", "header": "X-Acme-Token", "secret": [Secret(each) for each in secrets]})


def packed(secret: str) -> str:
    return f"Basic {b64encode(secret.encode()).decode()}"


CASES = pytest.mark.parametrize(
    ("make", "header", "written"),
    [(telegram, SIGNATURE_HEADER, str), (basic, "authorization", packed), (token, "x-acme-token", str)],
    ids=["telegram", "basic", "token"],
)


def everything(connection: Connection) -> str:
    """Return all that the ledger holds."""
    found = [connection.execute(select(table)).all() for table in METADATA.sorted_tables]
    return " ".join(
        bytes(each).decode() if isinstance(each, bytes) else str(each) for rows in found for row in rows for each in row
    )


async def post(setup: Any, header: str, value: str) -> int:
    answer = await setup.client.post("/webhooks/acme", content=BODY, headers={header: value})
    await setup.settled()
    status: int = answer.status_code
    return status


@CASES
async def test_an_accepted_webhook_leaves_no_secret(serve: Any, make: Any, header: str, written: Any) -> None:
    async with serve(provider=make(KNOWN)) as setup:
        assert await post(setup, header, written(KNOWN)) == 200
        assert await setup.store.read(lambda c: c.execute(select(func.count()).select_from(PAYLOAD)).scalar()) == 1
        held = await setup.store.read(everything)
        assert written(KNOWN) not in held
        assert KNOWN not in held


@CASES
async def test_a_refused_one_is_told_and_released(serve: Any, make: Any, header: str, written: Any) -> None:
    async with serve(provider=make(KNOWN)) as setup:
        assert await post(setup, header, written(UNKNOWN)) == 401
        held = await setup.store.read(everything)
        assert (BODY in held, written(UNKNOWN) in held, UNKNOWN in held) == (True, False, False)
        (entry,) = await setup.store.read(ledger.entries)
        row, *_ = await setup.store.read(ledger.content, entry.id)
        key = await setup.store.read(lambda c: sources.source_row(c, row.source_id)["digest_key"])

        def told(**others: Provider) -> str:
            providers = {"acme": make(KNOWN), **others}
            return diagnose(providers, "acme", request_of(row, providers.values(), key), setup.now[0])

        assert "no secret that is configured" in told()
        assert "it is signed for source other" in told(other=make(UNKNOWN))
        assert "verifies now" in told(acme=make(KNOWN, UNKNOWN))

        receiver = setup.receiver
        parts = {"runtime": receiver.runtime, "stream_ids": receiver.stream_ids, "evidence": receiver.evidence}
        assert isinstance(await release_webhook(entry.id, **parts), StillRefused)
        receiver.runtime.sources.change("acme", provider=make(KNOWN, UNKNOWN))
        assert await release_webhook(entry.id, **parts) == Released(new=1)
        held = await setup.store.read(everything)
        assert (written(UNKNOWN) in held, UNKNOWN in held) == (False, False)
