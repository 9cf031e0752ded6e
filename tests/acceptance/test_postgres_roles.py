"""Each role of a daemon works with the rights of `docs/postgres-roles.sql`, and the receiver cannot read payloads."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from inside import call
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Consumer, Gapless, until
from sqlalchemy.engine import make_url
from world import HASTY

from gapless import daemon
from gapless.daemon import Role, Timing
from gapless.settings import load
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SCRIPT = Path(__file__).parents[2] / "docs" / "postgres-roles.sql"
Logins = dict[Role, str]


@pytest.fixture
async def logins(postgres_url: str) -> AsyncIterator[Logins]:
    """The addresses of the ledger for a login of each role."""
    await run_sql(postgres_url, SCRIPT.read_text())
    names = {role: f"gapless_{role.value}_{secrets.token_hex(4)}" for role in Role}
    for role, name in names.items():
        await run_sql(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'pw' IN ROLE gapless_{role.value}")
    url = make_url(postgres_url)
    yield {
        role: url.set(username=name, password="pw").render_as_string(hide_password=False)
        for role, name in names.items()
    }
    for name in names.values():
        await run_sql(postgres_url, f"DROP ROLE {name}")


@asynccontextmanager
async def serving(gapless: Gapless, role: Role) -> AsyncIterator[None]:
    """Run one role in this process with the login of that role."""
    stop, ready = asyncio.Event(), asyncio.Event()
    settings = load(gapless.config, gapless.env)
    made = daemon.run(
        settings, gapless.env, stop, roles=frozenset({role}), timing=Timing(patience=HASTY, tick_s=0.05),
        started=lambda _: ready.set(),
    )  # fmt: skip
    running = asyncio.create_task(made)
    running.add_done_callback(lambda _: ready.set())
    await ready.wait()
    try:
        yield
    finally:
        stop.set()
        await running


async def refusal(url: str, statement: str) -> str:
    """Return what PostgreSQL says to a statement by that login."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error)
    finally:
        await connection.close()
    return ""


async def test_every_role_works_with_its_own_rights(
    logins: Logins, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeProvider(StripeFormat())
    async with AsyncExitStack() as stack:
        consumer = await stack.enter_async_context(Consumer().serve())
        api = await stack.enter_async_context(fake.serve())
        start = f"start = {datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        parts = {role: Gapless(tmp_path, logins[role], api, consumer, source=start) for role in Role}
        for role, part in parts.items():
            await stack.enter_async_context(serving(part, role))
        receiver = parts[Role.RECEIVE]
        fake.add_endpoint(receiver.public, secret=WEBHOOK_SECRET)
        pushed, lost = fake.emit("invoice.paid"), fake.emit("charge.failed", push=False)
        await until(lambda: {pushed.key, lost.key} <= consumer.ids, within_s=40)
        async with httpx.AsyncClient(trust_env=False) as client:
            forged = await client.post(receiver.public, content=b"{}", headers={"stripe-signature": "t=1,v1=00"})
            page = await client.get(parts[Role.CONSOLE].private)
            ready = [await client.get(f"{each.private}/readyz") for each in parts.values()]
        replay = ("event", "replay", pushed.key, "--destination", "consumer", "--yes")
        commands = [
            replay,
            ("event", "show", pushed.key),
            ("status",),
            ("quarantine", "release", "--source", "stripe-live"),
        ]
        done = [await call(parts[Role.CONSOLE], *command) for command in commands]
        await until(lambda: len(consumer.got[pushed.key]) >= 2, within_s=40)
    assert (forged.status_code, page.status_code) == (401, 200)
    assert [each.output for each in done if "permission denied" in each.output] == []
    assert (done[0].exit_code, done[1].exit_code) == (0, 0), done[0].output
    assert [each.status_code for each in ready] == [200] * 4
    assert [record for record in caplog.records if "permission denied" in str(record.__dict__)] == []


DENIED = (
    (Role.RECEIVE, "SELECT body FROM payload"),
    (Role.RECEIVE, "SELECT headers FROM payload"),
    (Role.RECONCILE, "SELECT body FROM payload"),
    (Role.RECEIVE, "SELECT answer FROM attempt"),
    (Role.RECONCILE, "SELECT answer FROM attempt"),
    (Role.DELIVER, "SELECT body FROM quarantine"),
    (Role.DELIVER, "UPDATE payload SET body = ''"),
    (Role.CONSOLE, "DELETE FROM payload"),
    *((role, "DELETE FROM audit_log") for role in Role),
    *((role, "UPDATE audit_log SET actor = 'x'") for role in Role),
    *((role, "CREATE TABLE mine (id int)") for role in Role),
    *((role, "UPDATE alembic_version SET version_num = '0'") for role in Role),
)


async def test_no_role_may_do_what_it_does_not_need(logins: Logins) -> None:
    allowed = [each for each in DENIED if "permission denied" not in await refusal(logins[each[0]], each[1])]
    assert allowed == []
