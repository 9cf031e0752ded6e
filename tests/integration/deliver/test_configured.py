"""From `gapless.toml` to a delivery: an outside kind, and a secret whose file is replaced."""

from pathlib import Path
from typing import Any

import pytest
from distributions import add_distribution
from standardwebhooks.webhooks import Webhook

from gapless.bootstrap.senders import make_sender
from gapless.destinations.registry import ENTRY_POINT_GROUP
from gapless.domain import system_clock
from gapless.settings import DestinationSettings, load

pytestmark = pytest.mark.anyio
OUTSIDE_KIND = """
from pathlib import Path

from gapless.destinations.contract import Delivered, DestinationOptions, Failed, FailureReason, SecretReader


class FolderOptions(DestinationOptions, frozen=True, kw_only=True):
    folder: str
    password: SecretReader


class FolderSender:
    kind = "folder"
    Options = FolderOptions

    def __init__(self, options, context):
        self.options = options

    async def send(self, delivery):
        if delivery.attempt == 1:
            return Failed(reason=FailureReason.CONNECTION, detail="not yet")
        text = f"{self.options.password.read().reveal()} {delivery.payload.decode()}"
        Path(self.options.folder, delivery.key).write_text(text)
        return Delivered()

    async def close(self):
        Path(self.options.folder, "closed").touch()
"""


def configured(folder: Path, toml: str, environ: dict[str, str]) -> DestinationSettings:
    (folder / "gapless.toml").write_text(f'[[destination]]\nname = "app"\n{toml}')
    return load(folder / "gapless.toml", environ).destinations[0]


async def test_an_outside_kind_is_configured_and_delivered_to(
    setup: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = f"acme_{tmp_path.name.replace('-', '_')}"
    add_distribution(tmp_path, module, OUTSIDE_KIND, group=ENTRY_POINT_GROUP, entry="folder", target="FolderSender")
    out = tmp_path / "out"
    out.mkdir()
    settings = configured(tmp_path, f'type = "folder"\nfolder = "{out}"\npassword_env = "WORD"', {"WORD": "s3same"})
    sender = make_sender(settings, setup.sources, system_clock)
    async with setup.delivering(setup.destination(sender)):
        await setup.record(setup.sighting("evt_1", body=b'{"id":"evt_1"}'))
        await setup.until("delivered")
    assert (out / "evt_1").read_text() == 's3same {"id":"evt_1"}'
    assert (out / "closed").exists()
    assert await setup.outcomes() == ["connection", "delivered"]


async def test_a_replaced_secret_file_signs_the_next_attempt(setup: Any, consumer: Any, tmp_path: Path) -> None:
    secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
    file = tmp_path / "secret"
    file.write_text(secrets[0])
    settings = configured(tmp_path, f'url = "{consumer.url}"\nsecret_file = "secret"\nallow = ["127.0.0.1"]', {})
    async with setup.delivering(setup.destination(make_sender(settings, setup.sources, system_clock))):
        for number, secret in enumerate(secrets):
            file.write_text(secret)
            await setup.record(setup.sighting(f"evt_{number}"))
            await setup.until("delivered")
    for got, secret in zip(consumer.got, secrets, strict=True):
        Webhook(secret).verify(got.body, got.headers)
