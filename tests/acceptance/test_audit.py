"""The audit of a faulty run finds exactly the planted faults, and its sums are the provider's: the real daemon."""

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from outside import WEBHOOK_SECRET, Consumer, Gapless, until
from sqlalchemy import func, select

from gapless.ledger import Connection
from gapless.ledger.tables import DELIVERY, EVENT, UNRECOVERABLE
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
TYPES = ("invoice.paid", "charge.succeeded", "customer.created")
TOKEN = "of-the-consumer-" + "x" * 32
ENVIRONMENT = {
    "GAPLESS_DESTINATION__CONSUMER__CONFIRM": "receipt",
    "GAPLESS_DESTINATION__CONSUMER__RECEIPT_WITHIN": "1h",
    "GAPLESS_PRIVATE__CONSUMER_TOKEN_ENV": "CONSUMER_TOKEN",
    "CONSUMER_TOKEN": TOKEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PayingFormat(StripeFormat):
    """Stripe's format, with an amount in each object."""

    def encode(self, event: FakeEvent, *, version: str | None = None, with_account: bool = False) -> bytes:
        """Return the event as JSON."""
        plain = StripeFormat.encode(self, event, version=version, with_account=with_account)
        fields = b'"amount":%d,"amount_paid":%d,"currency":"%b",' % (*_amounts(event), _currency(event).encode())
        return plain.replace(b'"description":', fields + b'"description":', 1)


def _amounts(event: FakeEvent) -> tuple[int, int]:
    return 1000 + event.number, 7 * event.number


def _currency(event: FakeEvent) -> str:
    return ("eur", "usd")[event.number % 2]


def _truth(events: Iterable[FakeEvent]) -> dict[tuple[str, str | None], tuple[int, str | None]]:
    """Return {(type, currency): (count, sum)} as the provider has them."""
    found: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for event in events:
        amount, paid = _amounts(event)
        named = {"invoice.paid": paid, "charge.succeeded": amount}.get(event.type)
        key = (event.type, None if named is None else _currency(event).upper())
        found[key].append(named or 0)
    return {key: (len(each), None if key[1] is None else str(sum(each))) for key, each in found.items()}


async def _confirm(daemon: Gapless, keys: Collection[str]) -> None:
    body = {"destination": "consumer", "source": "stripe-live", "keys": sorted(keys)}
    async with httpx.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        (await client.post(f"{daemon.private}/api/v1/receipts", json=body)).raise_for_status()


async def _make_table(store_url: str, folder: Path, keys: Collection[str]) -> str:
    """Make the team's own table of processed ids, in a database of the store's kind; return its address."""
    rows = [(key,) for key in keys]
    if store_url.startswith("postgres"):
        import asyncpg  # noqa: PLC0415 - an extra

        connection = await asyncpg.connect(store_url)
        await connection.execute("CREATE TABLE handled (event_id text PRIMARY KEY)")
        await connection.executemany("INSERT INTO handled VALUES ($1)", rows)
        await connection.close()
        return store_url
    with closing(sqlite3.connect(folder / "team.db")) as table, table:
        table.execute("CREATE TABLE handled (event_id TEXT PRIMARY KEY)")
        table.executemany("INSERT INTO handled VALUES (?)", rows)
    return f"sqlite:///{folder / 'team.db'}"


async def _settled(daemon: Gapless, events: int, confirmed: int) -> bool:
    def counts(connection: Connection) -> tuple[int, int, int]:
        applied = select(func.count()).select_from(DELIVERY).where(DELIVERY.c.applied_us.is_not(None))
        queries = (select(func.count()).select_from(EVENT), applied, select(func.count()).select_from(UNRECOVERABLE))
        found = [connection.execute(query).scalar_one() for query in queries]
        return found[0], found[1], found[2]

    return await daemon.read(counts) == (events, confirmed, 1)


@pytest.mark.parametrize("store_url", ["sqlite", "postgresql"], indirect=True)
async def test_the_audit_finds_exactly_the_planted_faults(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(PayingFormat())
    now = datetime.now(UTC)
    start = (now - timedelta(days=31)).strftime("%Y-%m-%dT%H:%M:%SZ")  # a day more than the provider's history
    fake.backfill(90, now - timedelta(days=20), now - timedelta(days=2), TYPES)
    sound = {event.key for event in fake.events}
    async with Consumer().serve() as consumer, fake.serve() as api:
        daemon = Gapless(
            tmp_path, store_url, api, consumer, source=f"start = {start}", environment=ENVIRONMENT, grace="2s"
        )
        fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
        pushed = [fake.emit(kind, push=False) for kind in TYPES * 10]
        undelivered, unconfirmed, unlisted, absent = pushed[3], pushed[4], pushed[8], pushed[12]
        consumer.answers = lambda key: 500 if key == undelivered.key else 200
        await daemon.start()
        fake.faults.drop = 0.3  # lost webhooks, which the passes find: they are no fault any more
        for event in pushed:
            fake.push(event)
        everything = sound | {event.key for event in pushed}
        await until(lambda: consumer.ids == everything)
        await _confirm(daemon, everything - {undelivered.key, unconfirmed.key})
        await until(lambda: _settled(daemon, len(everything), len(everything) - 2))
        await daemon.kill()
        missing = [fake.emit(kind) for kind in TYPES]  # while nobody is there
        fake.faults.hidden_keys = frozenset({unlisted.key})
        own = (everything | {event.key for event in missing}) - {absent.key} | {"evt_of_somebody_else"}
        daemon.environment = ENVIRONMENT | {"TEAM": await _make_table(store_url, tmp_path, own)}
        await asyncio.sleep(4)
        statement = await _audit(daemon, tmp_path)
        await _refusals(daemon)
        await _sound_part(daemon, tmp_path, now)
    planted = {
        ("undelivered", undelivered.key, "consumer"),
        ("unconfirmed", unconfirmed.key, "consumer"),
        ("unlisted", unlisted.key, ""),
        ("absent", absent.key, ""),
        *(("missing", event.key, "") for event in missing),
    }
    assert {(each["fault"], each["key"], each["where"]) for each in statement["faults"]} == planted
    assert len(statement["faults"]) == len(planted)
    assert len(statement["unrecoverable"]) == 1
    assert statement["counts"]["not_of_this_window"] == 1
    assert any("no longer lists the first" in each for each in statement["unknown"])
    listed = [event for event in fake.events if event.key != unlisted.key]
    sums = {(row["type"], row["currency"]): row["listed"] for row in statement["sums"]}
    shown = {key: (cell["count"], cell["sum"]) for key, cell in sums.items() if cell["count"]}
    assert shown == _truth(listed)
    lost = {(row["type"], row["currency"]): row["missing"] for row in statement["sums"]}
    assert {key: (cell["count"], cell["sum"]) for key, cell in lost.items() if cell["count"]} == _truth(missing)


async def _audit(daemon: Gapless, folder: Path) -> dict[str, Any]:
    """Audit all of it, write every report, and return the statement as JSON."""
    names = [folder / f"report{kind}" for kind in (".json", ".html", ".csv", ".sums.csv", ".txt")]
    reports = [part for name in names for part in ("--report", str(name))]
    sql = ("--against-sql", "SELECT event_id FROM handled", "--dsn-env", "TEAM")
    command = ("audit", "stripe-live", "--since", "32d", "--ledger", *sql, *reports, "--json")
    code, out, err = await daemon.call(*command)
    assert code == 1, err
    statement: dict[str, Any] = json.loads(out)
    assert json.loads(names[0].read_text()) == statement
    assert len(names[2].read_text().splitlines()) == 1 + len(statement["faults"])
    assert "NOT COMPLETE" in names[1].read_text()
    return statement


async def _refusals(daemon: Gapless) -> None:
    """The team's database is only read, and its address is in no message."""
    for sql, told in (("DELETE FROM handled RETURNING event_id", "read"), ("SELECT 1", "as text")):
        code, _, err = await daemon.call("audit", "stripe-live", "--against-sql", sql, "--dsn-env", "TEAM")
        assert code in (2, 3)
        assert told in err
        assert str(daemon.environment["TEAM"]) not in err


async def _sound_part(daemon: Gapless, folder: Path, now: datetime) -> None:
    """What is sound is complete: exit 0, signed, and verified until somebody changes it."""
    key, public, report = folder / "audit.pem", folder / "audit.pub.pem", folder / "sound.html"
    for command in (f"openssl genpkey -algorithm ed25519 -out {key}", f"openssl pkey -in {key} -pubout -out {public}"):
        made = await asyncio.create_subprocess_exec(*command.split(), stderr=asyncio.subprocess.PIPE)
        assert await made.wait() == 0
    window = ("--since", (now - timedelta(days=25)).isoformat(), "--until", (now - timedelta(days=1)).isoformat())
    sql = ("--against-sql", "SELECT event_id FROM handled", "--dsn-env", "TEAM")
    command = ("audit", "stripe-live", *window, "--ledger", *sql, "--report", str(report), "--sign-key", str(key))
    code, out, err = await daemon.call(*command)
    assert code == 0, out + err
    assert "COMPLETE: nothing is missing" in out
    verify = ("statement", "verify", str(report), "--public-key", str(public))
    assert (await daemon.call(*verify))[0] == 0
    report.write_text(report.read_text().replace("COMPLETE", "COMPLETE!"))
    assert (await daemon.call(*verify))[0] == 1
