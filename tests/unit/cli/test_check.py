"""What `gapless check` says about a configuration, without a request to anybody."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gapless.cli.main import main

CONFIG = """
[store]
url = "sqlite:///{folder}/ledger.db"
{private}
[[source]]
name = "acme"
provider = "stripe"
mode = "{mode}"
[source.options]
webhook_secret_env = "SECRET"
api_key_env = "KEY"
[[destination]]
name = "billing"
url = "https://billing.acme.example/webhooks"
secret_env = "DESTINATION_SECRET"
{destination}
"""
SECRETS = {
    "SECRET": "whsec_1",
    "KEY": "rk_live_1",
    "DESTINATION_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "CONSUMER_TOKEN": "a-token-of-enough-characters",
}
NEVER_SENT = "what the webhooks of source acme bring to us is never sent, although its handler may have lost it"
NO_TOKEN = "its handler can report only with the token of the whole console"


def check(folder: Path, destination: str, *, mode: str = "hybrid", private: str = "") -> str:
    path = folder / "gapless.toml"
    path.write_text(CONFIG.format(folder=folder, destination=destination, mode=mode, private=private))
    return CliRunner(env=SECRETS).invoke(main, ["--config", str(path), "check", "--offline"]).output


@pytest.mark.parametrize(
    ("destination", "mode", "private", "warned"),
    [
        ('via = ["list"]', "hybrid", "", {NEVER_SENT}),
        ('via = ["list"]', "poll", "", set()),
        ('via = ["list"]\nreceipts = true\ndelay = "5m"', "hybrid", "", {NO_TOKEN}),
        ('receipts = true\ndelay = "5m"', "hybrid", '[private]\nconsumer_token_env = "CONSUMER_TOKEN"', set()),
        ("", "hybrid", "", set()),
    ],
)
def test_a_destination_that_cannot_fill_gaps_is_named(
    destination: str, mode: str, private: str, warned: set[str], tmp_path: Path
) -> None:
    said = check(tmp_path, destination, mode=mode, private=private)
    assert {text for text in (NEVER_SENT, NO_TOKEN) if text in said} == warned


def test_receipts_need_a_delay(tmp_path: Path) -> None:
    said = check(tmp_path, "receipts = true")
    assert "option receipts is true, but delay is 0s; set the time within which the handler reports" in said
