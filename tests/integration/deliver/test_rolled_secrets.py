"""Secrets that are rolled while deliveries are under way: two signatures, and files that change."""

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.destinations.http import HttpOptions
from gapless.settings import SecretRef
from gapless.settings.destination_options import own_attributes
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
OLD, NEW, OTHER = (f"whsec_{base64.b64encode(bytes([number]) * 24).decode()}" for number in (1, 2, 3))


def accepts(secret: str, got: Any) -> bool:
    try:
        Webhook(secret).verify(got.body, got.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_two_signatures_while_a_secret_is_rolled(setup: Any, consumer: Any) -> None:
    secrets = {"secret": SecretRef(value=Secret(NEW)), "previous_secret": SecretRef(value=Secret(OLD))}
    async with setup.delivering(setup.destination(setup.http(consumer.url, **secrets))):
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    (got,) = consumer.got
    first, second = got.headers["webhook-signature"].split(" ")
    assert first.startswith("v1,")
    assert second.startswith("v1,")
    assert first != second
    assert [accepts(secret, got) for secret in (NEW, OLD, OTHER)] == [True, True, False]


async def test_the_roll_ends_when_the_old_secret_is_removed(setup: Any, consumer: Any, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text(OLD)
    secrets = {"secret": SecretRef(value=Secret(NEW)), "previous_secret": SecretRef(path=old)}
    async with setup.delivering(setup.destination(setup.http(consumer.url, **secrets))):
        old.unlink()
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    assert [accepts(secret, consumer.got[0]) for secret in (NEW, OLD)] == [True, False]


async def test_trap_hookaido_a_changed_header_counts_from_the_next_attempt_on(
    setup: Any, consumer: Any, tmp_path: Path
) -> None:
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text(OLD)
    token.write_text("Bearer old")
    consumer.will_answer(401, times=10_000)
    patient = DeliveryRetryPolicy(
        first=timedelta(milliseconds=20), longest=timedelta(milliseconds=20), max_attempts=9999, waits=(), max_age=None
    )
    options = {"secret": SecretRef(path=secret), "headers_file": {"Authorization": SecretRef(path=token)}}
    async with setup.delivering(setup.destination(setup.http(consumer.url, **options), retry=patient)):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(lambda _: bool(consumer.got))
        secret.write_text(NEW)
        token.write_text("Bearer new")
        await setup.wait_for(lambda _: consumer.got[-1].headers["authorization"] == "Bearer new")
        await setup.wait_for(lambda _: accepts(NEW, consumer.got[-1]))
        consumer.answers.clear()
        await setup.until("delivered")
    first, last = consumer.got[0], consumer.got[-1]
    assert (first.headers["authorization"], accepts(OLD, first), accepts(NEW, first)) == ("Bearer old", True, False)
    assert (last.headers["authorization"], accepts(OLD, last), accepts(NEW, last)) == ("Bearer new", False, True)


def test_the_options_of_files_name_files() -> None:
    kinds = {each.name: set(each.metadata) for each in own_attributes(HttpOptions)}
    assert "files" in kinds["headers_file"]
    assert "variables" in kinds["headers_env"]
