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


GITHUB = """
[[source]]
name = "acme"
provider = "github"
{more}
[source.options]
token_env = "KEY"
webhook_secret_env = "SECRET"
repository = "acme/shop"
hook_id = 1
"""
PADDLE = """
[[source]]
name = "acme"
provider = "rest_list"
{more}
[source.options]
base_url = "https://api.vendor.example"
auth = {{ type = "bearer", token_env = "KEY" }}
event = {{ key = "id", type = "type", time = "at" }}
grant = {{ requests = 240, period = "1m" }}
[source.options.webhook.signature]
scheme = "hmac"
header = "X-Signature"
secret_env = "SECRET"
[source.options.list]
path = "/events"
records = "data"
order = "newest_first"
page = {{ type = "cursor", param = "after", cursor = "data[-1].id", more = "more" }}
"""
PLENTY = 'read_budget = { requests = 1_000_000, period = "30d" }'
LITTLE = 'read_budget = { requests = 10, period = "30d" }'


@pytest.mark.parametrize(
    ("config", "more", "level", "said"),
    [
        (STRIPE, "", "warning", "reads every 12m49s, and soon after each webhook, for 34 % of the grant"),
        (STRIPE, PLENTY, "ok", "reads every 30s, and soon after each webhook, for 9 % of the grant"),
        (STRIPE, LITTLE, "warning", "reads every 11d12h"),
        (
            GITHUB,
            "",
            "ok",
            "reads every 30s, and soon after each webhook, for 5 % of the grant; a lost webhook",
        ),
        (PAYPAL, "", "ok", "reads every 1m, and soon after each webhook; a lost webhook is found within about 50s"),
        (
            PADDLE,
            "",
            "ok",
            "reads every 30s, and soon after each webhook, for 1 % of the grant; a lost webhook",
        ),
    ],
)
def test_check_says_the_plan_at_the_least_that_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, more: str, level: str, said: str
) -> None:
    lines = check(tmp_path, monkeypatch, config, more)
    (plan,) = (line for line in lines if "before its rhythm is known" in line)
    assert plan.startswith(f"{level:8} source acme: before its rhythm is known, it is read so: {said}"), plan
    assert ("The grant is short" in plan) == ("set read_budget" in plan) == (level == "warning")


def test_check_tells_when_the_history_runs_out_between_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = 'read_budget = { requests = 4, period = "30d" }'
    (plan,) = (line for line in check(tmp_path, monkeypatch, STRIPE, tiny) if "rhythm" in line)
    assert "The provider's history runs out between two readings" in plan


@pytest.mark.parametrize("more", ['pace = "interval"', 'mode = "webhook"'])
def test_check_plans_only_what_adapts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    assert not any("rhythm" in line for line in check(tmp_path, monkeypatch, STRIPE, more))
