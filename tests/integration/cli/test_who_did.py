"""The audit log and tokens on the command line, as a person uses them."""

import getpass
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from inside import call, serving
from outside import Gapless

from gapless.bootstrap.audit_key import key_path
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
HOOK = "https://hooks.example/webhooks/stripe-live"


@pytest.fixture
def gapless(sqlite_url: str, tmp_path: Path) -> Gapless:
    """A configuration without a running daemon, whose vendor cannot be reached."""
    return Gapless(tmp_path, sqlite_url, "http://127.0.0.1:9")


def ledger(gapless: Gapless) -> Path:
    return Path(gapless.store_url.removeprefix("sqlite:///"))


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


async def test_the_log_says_who_and_a_tampered_row_is_named(gapless: Gapless) -> None:
    for name in ("one", "two"):
        made = await call(gapless, "token", "create", name, "--role", "viewer", "--expires", "never")
        assert made.exit_code == 0, made.output
    assert key_path(ledger(gapless)).stat().st_mode & 0o777 == 0o600
    logged = rows(await call(gapless, "log", "--json"))
    assert [(row["actor"], row["role"], row["action"], row["subject"]) for row in logged] == [
        (getpass.getuser(), "owner", "token.create", "one"),
        (getpass.getuser(), "owner", "token.create", "two"),
    ]
    assert rows(await call(gapless, "log", "--json", "--actor", "nobody")) == []
    proven = await call(gapless, "log", "verify")
    assert (proven.exit_code, "is as it was written: 2 rows" in proven.stdout) == (0, True)
    noted = proven.stdout.splitlines()[-1].removeprefix("newest row: ")
    with sqlite3.connect(ledger(gapless)) as connection:
        connection.execute("UPDATE audit_log SET actor = 'mal' || char(27) || '[2J' WHERE number = 1")
    assert "\x1b" not in (await call(gapless, "log")).stdout
    found = await call(gapless, "log", "verify", "--noted", noted)
    assert (found.exit_code, found.stdout.splitlines()[0]) == (
        1,
        r"row 1 (token.create of one, by mal\x1b[2J) was changed or inserted",
    )


async def test_a_token_is_listed_used_and_revoked_at_a_daemon(gapless: Gapless) -> None:
    gapless.environment = {"GAPLESS_PRIVATE__TOKEN": "a-token-of-enough-characters"}
    async with serving(gapless):
        made = await call(gapless, "token", "create", "see", "--role", "viewer", "--expires", "90d")
        headers = {"authorization": f"Bearer {made.stdout.strip()}"}
        async with httpx.AsyncClient(base_url=gapless.private, trust_env=False) as client:
            assert (await client.get("/api/status")).status_code == 401
            assert (await client.get("/api/status", headers=headers)).status_code == 200
            assert (await call(gapless, "token", "revoke", "see")).exit_code == 0
            assert (await client.get("/api/status", headers=headers)).status_code == 401
        (listed,) = rows(await call(gapless, "token", "list", "--json"))
        again = await call(gapless, "token", "revoke", "see")
    assert (listed["name"], listed["role"], listed["state"]) == ("see", "viewer", "revoked")
    assert listed["created_by"] == listed["revoked_by"] == getpass.getuser()
    expires = datetime.fromisoformat(str(listed["expires"])) - datetime.now(UTC)
    assert timedelta(days=89) < expires <= timedelta(days=90)
    assert (again.exit_code, "could be revoked; there are: none" in again.stderr) == (2, True)


async def test_what_is_done_at_the_provider_is_in_the_log(gapless: Gapless, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with fake.serve() as api:
        gapless.api = api
        at = ("stripe-live", "--url", HOOK)
        secret = ("--secret-file", str(tmp_path / "secret"))
        assert (await call(gapless, "source", "register", *at, *secret)).exit_code == 0
        assert (await call(gapless, "source", "repair", *at)).exit_code == 0
    done = [
        (row["action"], json.loads(str(row["detail"]))["at_the_provider"])
        for row in rows(await call(gapless, "log", "--json"))
    ]
    assert [action for action, _ in done] == ["source.register"] * 2 + ["source.repair"] * 2
    assert done[0][1] == f"about to register {HOOK}"
    assert done[1][1].startswith("registered we_")
    assert done[3][1] == "it is enabled"


async def test_a_vanished_token_file_does_not_stop_a_daemon(gapless: Gapless, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-of-enough-characters\n")
    gapless.environment = {"GAPLESS_PRIVATE__TOKEN_FILE": str(file)}
    headers = {"authorization": "Bearer a-token-of-enough-characters"}
    async with serving(gapless), httpx.AsyncClient(base_url=gapless.private, trust_env=False) as client:
        assert (await client.get("/api/status", headers=headers)).status_code == 200
        file.unlink()
        assert (await client.get("/api/status", headers=headers)).status_code == 503
        file.write_text("short")
        assert (await client.get("/api/status", headers={"authorization": "Bearer short"})).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_a_daemon_takes_webhooks_from_the_networks_of_their_source_only(gapless: Gapless) -> None:
    gapless.environment = {
        "GAPLESS_SOURCE__STRIPE_LIVE__ALLOW_FROM": "203.0.113.0/24",
        "GAPLESS_CONNECTIONS__PROXIES": "127.0.0.0/8",
    }
    async with serving(gapless), httpx.AsyncClient(trust_env=False) as client:
        for sender, status in (("198.51.100.1", 403), ("203.0.113.9", 401)):  # the second has no signature
            answer = await client.post(gapless.public, content=b"{}", headers={"x-forwarded-for": sender})
            assert answer.status_code == status, sender
        assert (await gapless.metrics())["gapless_address_refused_total"] == {(): 1.0}
