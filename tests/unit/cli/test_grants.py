"""What a vendor grants, in words, and what `gapless check` says of it."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from gapless.cli.grants import grant_in_words, limits_in_words
from gapless.cli.main import main
from gapless_reconcilers.kit.contract import Grant, Pool
from gapless_reconcilers.providers.paypal import PayPal
from gapless_reconcilers.providers.standard_webhooks import StandardWebhooks
from gapless_reconcilers.providers.stripe import Stripe
from gapless_reconcilers.providers.telegram import Telegram

HOUR = timedelta(hours=1)
STRIPE = """
[[source]]
name = "acme"
provider = "stripe"
{more}
[source.options]
api_key_env = "KEY"
webhook_secret_env = "SECRET"
"""
PAYPAL = """
[[source]]
name = "acme"
provider = "paypal"
{more}
[source.options]
client_id = "c"
client_secret_env = "KEY"
webhook_id = ["w"]
"""


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, "5,000 requests in 1h"),
        ({"source": "vendor.example"}, "5,000 requests in 1h (vendor.example)"),
        ({"source": "a", "read_on": date(2026, 11, 27)}, "5,000 requests in 1h (a, read 2026-11-27)"),
        ({"pool": Pool.ADDRESS}, "5,000 requests in 1h, for all accounts that are read from one address"),
        (
            {"per_event": 500, "types": ("a", "b"), "pool": Pool.PLATFORM},
            "5,000 requests in 1h, or 500 for each a and b in it if that is more, for all connected accounts together",
        ),
    ],
)
def test_a_grant_is_said_with_its_source(values: Mapping[str, object], wanted: str) -> None:
    assert grant_in_words(Grant(requests=5_000, period=HOUR, **values)) == wanted  # type: ignore[arg-type]


def test_every_kind_of_limit_is_said() -> None:
    assert limits_in_words(StandardWebhooks.capabilities) == "-"
    assert limits_in_words(Telegram.capabilities) == "nothing is published"
    assert limits_in_words(PayPal.capabilities) == "nothing is published; at most every 1m"
    assert limits_in_words(Stripe.capabilities).startswith("10,000 requests in 30d, or 500 for each charge.succeeded")


def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, more: str = "") -> list[str]:
    path = tmp_path / "gapless.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/g.db"\n' + config.format(more=more))
    monkeypatch.setenv("KEY", "sk_live_x")
    monkeypatch.setenv("SECRET", "whsec_x")
    result = CliRunner().invoke(main, ["--config", str(path), "check", "--offline"])
    return [line for line in result.output.splitlines() if "source acme" in line]


def test_check_says_what_is_granted_and_where_that_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = check(tmp_path, monkeypatch, STRIPE)
    assert any(
        "granted: 10,000 requests in 30d, or 500 for each" in line and "docs.stripe.com" in line for line in lines
    )
    own = 'read_budget = { requests = 700, period = "1d" }'
    assert any(
        "granted: 700 requests in 1d (read_budget)" in line for line in check(tmp_path, monkeypatch, STRIPE, own)
    )
    assert not any("granted" in line for line in check(tmp_path, monkeypatch, STRIPE, 'mode = "webhook"'))


def test_check_says_what_is_not_published_and_too_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = check(tmp_path, monkeypatch, PAYPAL)
    assert any("its provider publishes no limit of reads" in line for line in lines)
    assert not any("more often" in line for line in lines)
    often = check(tmp_path, monkeypatch, PAYPAL, 'every = "30s"')
    assert any("every = 30s is more often than its provider wants: it is read every 1m" in line for line in often)
