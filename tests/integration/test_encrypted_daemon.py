"""A daemon with keys: what it stores is sealed; without them it records nothing, holds what is owed, and says why."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from inside import call, serving
from keys import FIRST, SECOND
from outside import ENVIRONMENT, Consumer, Gapless, until
from sqlalchemy import select

from gapless.ledger.tables import DELIVERY, PAYLOAD, QUARANTINE
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
NOWHERE = "http://127.0.0.1:1"
CANARY = "canary of a payload"


def body_of(key: str) -> bytes:
    found = {"id": "in_1", "object": "invoice", "note": CANARY}
    whole = {"id": key, "object": "event", "type": "invoice.paid", "created": int(time.time()), "livemode": True}
    return json.dumps({**whole, "api_version": "2025-01-27.acacia", "data": {"object": found}}).encode()


async def send(daemon: Gapless, key: str, secret: str = ENVIRONMENT["STRIPE_WEBHOOK_SECRET"]) -> int:
    """Send a signed webhook; return the status."""
    body, at = body_of(key), int(time.time())
    mac = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(daemon.public, content=body, headers={"stripe-signature": f"t={at},v1={mac}"})
    return answer.status_code


def with_keys(folder: Path, url: str, lines: Iterable[str], consumer: Consumer | None = None) -> Gapless:
    """Return a daemon whose keys are in a file."""
    file = folder / "keys"
    file.write_text("\n".join(lines))
    environment = {"GAPLESS_ENCRYPTION__KEYS_FILE": str(file)}
    return Gapless(folder, url, NOWHERE, consumer, environment=environment)


def without_keys(daemon: Gapless) -> Gapless:
    return Gapless(daemon.folder, daemon.store_url, NOWHERE, daemon.consumer)


async def ready(daemon: Gapless) -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.get(f"{daemon.private}/readyz")
    return answer.status_code, answer.text


async def deliveries(daemon: Gapless) -> list[tuple[str, str | None]]:
    query = select(DELIVERY.c.state, DELIVERY.c.reason).order_by(DELIVERY.c.event_seq)
    return await daemon.read(lambda connection: [tuple(row) for row in connection.execute(query)])


async def sealed_by(daemon: Gapless) -> list[str | None]:
    query = select(PAYLOAD.c.sealed_by).order_by(PAYLOAD.c.id)
    return await daemon.read(lambda connection: list(connection.execute(query).scalars()))


def held_in(folder: Path) -> dict[str, bool]:
    """Return which files of the ledger have the canary in the clear."""
    return {each.name: CANARY.encode() in each.read_bytes() for each in folder.iterdir() if each.is_file()}


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_canary_is_in_no_file_and_no_log(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Consumer().serve() as consumer:
        daemon = with_keys(tmp_path, store_url, [FIRST], consumer)
        async with serving(daemon):
            assert await send(daemon, "evt_1") == 200
            assert await send(daemon, "evt_forged", "whsec_guess") == 401
            await until(lambda: consumer.ids == {"evt_1"})
            await until(lambda: daemon.read(lambda c: c.execute(select(QUARANTINE.c.id)).first()))
            assert {name for name, has in held_in(tmp_path).items() if has} == set()
            shown = (await call(daemon, "event", "show", "evt_1", "--payload")).output
            assert CANARY in shown
            listed = await call(daemon, "quarantine", "list")
            assert "1" in listed.output
        assert {name for name, has in held_in(tmp_path).items() if has} == set()
        assert "ledger.db" in held_in(tmp_path)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_command_counts_asks_and_erases(store_url: str, tmp_path: Path) -> None:
    daemon = with_keys(tmp_path, store_url, [FIRST])
    command = ("event", "erase", "--pointer", "/data/object/note", "--value", CANARY, "--reason", "request 1")
    async with serving(daemon):
        assert await send(daemon, "evt_1") == 200
        asked = await call(daemon, *command)
        assert (asked.exit_code, asked.output.splitlines()[0]) == (
            1, "1 events, 0 refused webhooks, 0 rows that cannot be read",
        )  # fmt: skip
        assert CANARY in (await call(daemon, "event", "show", "evt_1")).output
        done = await call(daemon, *command, "--yes")
        assert (done.exit_code, "erased: 1 payloads of 1 events" in done.output) == (0, True)
        shown = json.loads((await call(daemon, "event", "show", "evt_1")).output)
        assert (shown["payload"], shown["key"], shown["erased"] is None) == (None, "evt_1", False)
        assert await send(daemon, "evt_1") == 200
        assert json.loads((await call(daemon, "event", "show", "evt_1")).output)["payload"] is None
        again = await call(daemon, *command, "--yes")
        assert (again.exit_code, again.output.splitlines()[0][:8]) == (1, "0 events")
        assert CANARY not in (await call(daemon, "log")).output


async def test_without_its_key_nothing_is_recorded_and_nothing_lost(store_url: str, tmp_path: Path) -> None:
    async with Consumer().serve() as consumer:
        daemon = with_keys(tmp_path, store_url, [FIRST], consumer)
        consumer.answers = lambda _: 500
        async with serving(daemon):
            assert await send(daemon, "evt_1") == 200
            await until(lambda: consumer.ids == {"evt_1"})
        consumer.got.clear()
        bare = without_keys(daemon)
        async with serving(bare):
            assert await send(bare, "evt_2") == 503
            status, text = await ready(bare)
            assert (status, "sealed with the key first" in text) == (503, True)
            said = await call(bare, "status")
            assert (said.exit_code, "Payloads cannot be sealed" in said.output) == (1, True)
            await until(lambda: _is_held(bare))
            checked = await call(bare, "check", "--offline")
            assert "problem  encryption: the ledger is sealed with the key first" in checked.output
            shown = await call(bare, "event", "show", "evt_1", "--payload")
            assert (shown.exit_code, "'first', which is not configured" in shown.output) == (3, True)
            rest = json.loads((await call(bare, "event", "show", "evt_1")).output)
            assert (rest["key"], rest["payload"][:10]) == ("evt_1", "not shown:")
        consumer.answers = lambda _: 200
        again = with_keys(tmp_path, store_url, [FIRST], consumer)
        async with serving(again):
            assert await send(again, "evt_2") == 200
            await until(lambda: consumer.ids == {"evt_1", "evt_2"})
            assert (await ready(again))[0] == 200


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_what_a_list_shows_waits_for_the_key(store_url: str, tmp_path: Path) -> None:
    """No list is read meanwhile, because nothing of it could be recorded."""
    fake = FakeProvider(StripeFormat())
    async with fake.serve() as api:
        daemon = replace(with_keys(tmp_path, store_url, [FIRST]), api=api)
        async with serving(daemon):
            assert await send(daemon, "evt_1") == 200
        lost = fake.emit("invoice.paid", push=False)
        bare = replace(without_keys(daemon), api=api)
        async with serving(bare):
            asked = len(fake.requests)
            assert (await call(bare, "status")).exit_code == 1
            assert lost.key not in await bare.ledger_ids()
            assert len(fake.requests) == asked
        async with serving(daemon):
            await until(lambda: _has(daemon, lost.key))
            assert set(await sealed_by(daemon)) == {"first"}


async def _has(daemon: Gapless, key: str) -> bool:
    return key in await daemon.ledger_ids()


async def _is_held(daemon: Gapless) -> bool:
    return await deliveries(daemon) == [("held", "key_missing")]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_keys_are_changed_and_rotated_while_it_runs(store_url: str, tmp_path: Path) -> None:
    daemon = with_keys(tmp_path, store_url, [FIRST])
    async with serving(daemon):
        assert await send(daemon, "evt_1") == 200
        (tmp_path / "keys").write_text(f"{SECOND}\n{FIRST}\n")
        number = 1
        while (await sealed_by(daemon))[-1] != "second":
            number += 1
            assert await send(daemon, f"evt_{number}") == 200
        listed = (await call(daemon, "keys", "list")).output
        assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
            ["first", "older"], ["second", "current"], ["clear", "-"],
        ]  # fmt: skip
        (tmp_path / "keys").write_text(SECOND)  # too early: rows need the first
        needs = await call(daemon, "keys", "check")
        assert (needs.exit_code, "rows need the key 'first', which is not configured" in needs.output) == (1, True)
        assert await send(daemon, "evt_more") == 200
        (tmp_path / "keys").write_text(f"{SECOND}\n{FIRST}\n")
        rotated = await call(daemon, "keys", "rotate")
        assert (rotated.exit_code, "rows were sealed anew" in rotated.output) == (0, True), rotated.output
        assert set(await sealed_by(daemon)) == {"second"}
        checked = await call(daemon, "keys", "check")
        assert (checked.exit_code, "key first: no row needs it; its line can be removed" in checked.output) == (0, True)
        log = (await call(daemon, "log")).output
        assert "keys.rotate" in log
    (tmp_path / "keys").write_text(SECOND)
    async with serving(daemon):
        assert CANARY in (await call(daemon, "event", "show", "evt_1", "--payload")).output
        assert "second seals; the keys open what needs them" in (await call(daemon, "check", "--offline")).output
