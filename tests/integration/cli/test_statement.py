"""What a statement cannot know it says, and is not complete."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outside import Gapless, until

from gapless.ledger import Connection, accounts
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
PUSHED = """
[[source]]
name = "pushed"
provider = "standard_webhooks"
[source.options]
secret_env = "CONSUMER_SECRET"
"""


async def test_without_a_list_nothing_is_known_to_be_missing(sqlite_url: str, tmp_path: Path) -> None:
    gapless = Gapless(tmp_path, sqlite_url, "http://127.0.0.1:9", destinations=PUSHED)
    report = tmp_path / "pushed.json"
    code, out, err = await gapless.call("audit", "pushed", "--report", str(report))
    assert code == 1, err
    statement = json.loads(report.read_text())
    assert not statement["complete"]
    assert set(statement["counts"].values()) == {None}
    assert set(statement["digests"].values()) == {None}
    assert "unknown: provider 'standard_webhooks' has no list that can be read again" in out


async def test_the_events_of_another_account_are_told(sqlite_url: str, tmp_path: Path) -> None:
    fake, now = FakeProvider(StripeFormat()), datetime.now(UTC)
    start = (now - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fake.backfill(20, now - timedelta(days=2), now - timedelta(hours=1), ["invoice.paid"])

    def has_account(connection: Connection) -> bool:
        return accounts.read(connection, 1).own is not None

    async with fake.serve() as api:
        gapless = Gapless(tmp_path, sqlite_url, api, source=f"start = {start}")
        await gapless.start()
        await until(lambda: gapless.read(has_account))
        truth = {event.key for event in fake.events}
        await until(lambda: _has(gapless, truth))
        window = ("--since", (now - timedelta(days=2, minutes=1)).isoformat(), "--until", now.isoformat())
        command = ("audit", "stripe-live", *window, "--ledger", "--json")
        code, out, err = await gapless.call(*command)  # while the daemon runs
        assert code == 0, out + err
        assert await gapless.end() == 0
        fake.vendor_format = StripeFormat(account="acct_other")
        code, out, err = await gapless.call(*command)
    assert code == 1, err
    assert any("acct_other" in each and "acct_fake" in each for each in json.loads(out)["unknown"])


async def _has(gapless: Gapless, truth: set[str]) -> bool:
    return await gapless.ledger_ids() == truth


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--against-sql", "SELECT 1"), "--against-sql needs --dsn-env"),
        (("--sign-key", "{key}"), "name one with --report"),
        (("--report", "report.pdf"), "its name must end in"),
        (("--report", "report.html", "--sign-key", "{key}"), "no Ed25519 private key"),
        (("--against-sql", "SELECT 1", "--dsn-env", "NOT_SET"), "NOT_SET is not set"),
        (("--report", "report.html", "--missing-out", "ids.txt"), "use --report FILE.csv"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    sqlite_url: str, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    (tmp_path / "key").write_text("no key")
    gapless = Gapless(tmp_path, sqlite_url, "http://127.0.0.1:9")
    given = [
        str(tmp_path / each) if each.endswith((".html", ".txt")) else each.format(key=tmp_path / "key")
        for each in options
    ]
    code, _, err = await gapless.call("audit", "stripe-live", *given)
    assert code == 2
    assert told in " ".join(err.split())
