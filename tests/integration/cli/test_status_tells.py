"""What blinds a source or stops the ledger is told while it lasts: by `gapless status`, beside a daemon that runs."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from inside import call, serving
from ledgers import run_sql
from outside import WEBHOOK_SECRET, Gapless
from sqlalchemy.engine import make_url
from stream_server import stream_server

from gapless.ledger.engine import sqlite
from gapless.status import reader
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest

pytestmark = pytest.mark.anyio
NOBODY = "http://127.0.0.1:1"
Rewrite = Callable[[bytes], bytes]


class ListFormat(StripeFormat):
    """Stripe's format, with another form of list rows and of list answers."""

    rewrite: Rewrite
    """How the list shows a row."""
    answered: Rewrite
    """How the list answers."""

    def __init__(self) -> None:
        StripeFormat.__init__(self)
        self.show()

    def show(self, rewrite: Rewrite = bytes, answered: Rewrite = bytes) -> None:
        """Let the list show this from now on."""
        object.__setattr__(self, "rewrite", rewrite)
        object.__setattr__(self, "answered", answered)

    def encode(self, event: FakeEvent, *, version: str | None = None, with_account: bool = False) -> bytes:
        """Return the event as JSON. `with_account` is set for webhooks."""
        plain = StripeFormat.encode(self, event, version=version, with_account=with_account)
        return plain if with_account else self.rewrite(plain)

    def _events(self, request: ApiRequest, stream: str, state: object) -> ApiAnswer:
        answer = StripeFormat._events(self, request, stream, state)  # type: ignore[arg-type]
        return ApiAnswer(status=answer.status, body=self.answered(answer.body), headers=answer.headers)


def without_time(row: bytes) -> bytes:
    return re.sub(rb'"created":\d+', b'"created":null', row)


def renamed(row: bytes) -> bytes:
    return row.replace(b'"created":', b'"created_at":')


def half(answer: bytes) -> bytes:
    return answer[: len(answer) // 2]


async def tells(gapless: Gapless, *texts: str) -> int:
    """Wait until `gapless status` says all `texts`, and return its exit code."""
    for _ in range(100):
        done = await call(gapless, "status")
        if all(text in done.output for text in texts):
            return done.exit_code
        await asyncio.sleep(0.1)
    raise AssertionError(done.output)


async def is_well(gapless: Gapless) -> bool:
    """Wait until `gapless status` has nothing to say."""
    return await tells(gapless, "Nothing is wrong.") == 0


@pytest.fixture
def listing() -> ListFormat:
    return ListFormat()


@pytest.fixture
async def fake(listing: ListFormat) -> FakeProvider:
    return FakeProvider(listing)


@pytest.fixture
async def gapless(fake: FakeProvider, store_url: str, tmp_path: Path) -> AsyncIterator[Gapless]:
    """A daemon that reads the list of `fake`, which has events."""
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, store_url, api)
        fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
        async with serving(gapless):
            assert await is_well(gapless)
            yield gapless


ANY_STORE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what no store can change."""


async def test_a_row_that_cannot_be_read(gapless: Gapless, fake: FakeProvider, listing: ListFormat) -> None:
    listing.show(without_time)
    fake.emit("invoice.paid", push=False)
    said = "The list shows 1 row that cannot be read", "See `gapless missing list --source stripe-live`"
    assert await tells(gapless, *said) == 1
    listing.show()
    await tells(gapless, "in hand: stripe-live: 1 of 1 events of the last 1h were missed by webhook.")


@ANY_STORE
@pytest.mark.parametrize(("rewrite", "answered"), [(renamed, bytes), (bytes, half)], ids=["renamed", "cut short"])
async def test_a_list_of_another_shape(
    gapless: Gapless, fake: FakeProvider, listing: ListFormat, rewrite: Rewrite, answered: Rewrite
) -> None:
    listing.show(rewrite, answered)
    for _ in range(12):
        fake.emit("invoice.paid")
    said = "The provider's list has a shape that is not known.", "look at the log line pass_failed"
    assert await tells(gapless, *said) == 1
    listing.show()
    assert await is_well(gapless)


@ANY_STORE
async def test_a_list_that_shows_nothing(gapless: Gapless, fake: FakeProvider) -> None:
    fake.faults.empty_lists = True
    fake.emit("invoice.paid")
    await fake.settle()
    await tells(
        gapless, "The provider's list lacks 1 event that came by webhook: evt_", "Nothing: the list is read again"
    )


@ANY_STORE
async def test_a_revoked_key(gapless: Gapless, fake: FakeProvider) -> None:
    fake.faults.key_revoked = True
    assert await tells(gapless, "Not read: ", "401", "Run `gapless check`, correct the key or options") == 1


@ANY_STORE
async def test_a_provider_that_is_down(gapless: Gapless, fake: FakeProvider) -> None:
    fake.faults.outage = True
    said = (
        "The last pass ended early: provider_unavailable: ",
        "was answered with 503",
        "it is tried again automatically",
    )
    assert await tells(gapless, *said) == 0
    fake.faults.outage = False
    assert await is_well(gapless)


@asynccontextmanager
async def dripping() -> AsyncIterator[str]:
    """A provider that answers a byte now and then, for ever."""

    async def answer(requests: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await requests.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)

    async with stream_server(answer) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_list_that_drips(sqlite_url: str, tmp_path: Path) -> None:
    async with dripping() as api:
        gapless = Gapless(tmp_path, sqlite_url, api, source='request_within = "1s"')
        async with serving(gapless):
            await tells(gapless, f"{api}: no whole answer within 1 s", "it is tried again automatically")


async def test_a_provider_that_cannot_be_reached(sqlite_url: str, tmp_path: Path) -> None:
    gapless = Gapless(tmp_path, sqlite_url, NOBODY)
    async with serving(gapless):
        await tells(gapless, f"{NOBODY}: ConnectError", "it is tried again automatically", "Not compared with")


SECOND = """
[[source]]
name = "second"
provider = "stripe"
every = "1s"
share_account = {shares}
[source.options]
api_base = "{api}"
api_key_env = "STRIPE_API_KEY"
webhook_secret_env = "STRIPE_WEBHOOK_SECRET"
"""


async def test_an_account_that_another_source_reads(fake: FakeProvider, sqlite_url: str, tmp_path: Path) -> None:
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, sqlite_url, api, options=SECOND.format(api=api, shares="false"))
        async with serving(gapless):
            said = "reads the same account as ", "remove one, or set share_account = true"
            assert await tells(gapless, *said) == 1


# --- the ledger


def write_much(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(
            "INSERT INTO audit_log (at_us, actor, action, subject, detail) VALUES (0, '', '', '', ?)", ("x" * 200_000,)
        )


@ANY_STORE
async def test_a_reader_that_lets_the_log_grow(
    gapless: Gapless, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOG_LIMIT_BYTES", 1 << 20)
    monkeypatch.setattr(reader, "LOG_TOO_LARGE", 1 << 21)
    path = Path(make_url(store_url).database or "")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM source").fetchone()
        for _ in range(12):
            await asyncio.to_thread(write_much, path)
        said = (
            "The write-ahead log of the ledger cannot start over and grows: ",
            "End the program that reads the ledger",
        )
        assert await tells(gapless, *said) == 1


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
async def test_a_database_that_becomes_read_only(gapless: Gapless, store_url: str) -> None:
    """As after a failover: the sessions that were open go on to fail, and so do new ones."""
    url = make_url(store_url)
    beside = url.set(database="postgres").render_as_string(hide_password=False)
    await run_sql(beside, f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
    said = "The database allows no writes", "Name the primary server in the store url"
    assert await tells(gapless, *said) == 1
    await run_sql(beside, f"ALTER DATABASE {url.database} RESET default_transaction_read_only")
    assert await is_well(gapless)


async def test_an_older_configuration(fake: FakeProvider, postgres_url: str, tmp_path: Path) -> None:
    """A second replica is started again with the file of before, which lacks a source."""
    async with fake.serve() as api:
        old = Gapless(tmp_path, postgres_url, api)
        new = Gapless(
            tmp_path, postgres_url, api, source="share_account = true", options=SECOND.format(api=api, shares="true")
        )
        async with serving(old):
            pass
        async with serving(new), serving(old):
            said = (
                "was started with an older configuration, and did not retire source second.",
                "gapless config activate",
            )
            assert await tells(new, *said) == 1
