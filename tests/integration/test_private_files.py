"""Only the user of the daemon may read the ledger, its log, its backups, and what was deleted from it."""

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from inside import serving
from outside import ENVIRONMENT, Gapless
from sqlalchemy import Connection, delete, insert

from gapless.cli.main import main
from gapless.ledger import migrate
from gapless.ledger.engine import StoreInvalid, open_store
from gapless.ledger.engine.lock import hold
from gapless.ledger.tables import PAYLOAD

pytestmark = pytest.mark.anyio
CANARY = b"canary-of-a-deleted-payload"


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Let new files be readable by everybody, as they are on most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    return {each.name: mode(each) for each in folder.glob("*.db*")}


def open_to_all(folder: Path) -> None:
    (folder / "ledger.db.0018.bak").touch()
    for each in folder.iterdir():
        each.chmod(0o644)


def content(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.glob("*.db*"))


async def test_a_new_ledger_and_its_folder_are_the_owners(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "gapless"
    async with serving(Gapless(tmp_path, f"sqlite:///{folder}/ledger.db", "http://127.0.0.1:1")):
        found = modes(folder)
    names = ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock", "ledger.db.audit-key")
    assert found == dict.fromkeys(names, 0o600)
    assert mode(folder) == 0o700


async def test_an_open_ledger_is_closed_with_a_word(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_to_all(tmp_path)
    with caplog.at_level(logging.WARNING):
        async with serving(Gapless(tmp_path, sqlite_url, "http://127.0.0.1:1")):
            found = modes(tmp_path)
    assert set(found.values()) == {0o600}
    assert {"ledger.db", "ledger.db-wal", "ledger.db.0018.bak"} <= set(found)
    assert "ledger_files_narrowed" in caplog.messages


@pytest.mark.usefixtures("sqlite_url")
def test_an_open_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    (tmp_path / "ledger.db").chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(StoreInvalid, match=r"others can read .*ledger\.db, .*chmod 600"), hold(tmp_path / "ledger.db"):
        pass


@pytest.mark.usefixtures("sqlite_url")
def test_a_backup_is_the_owners(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.0001.bak").touch()
    assert mode(migrate.back_up_sqlite(tmp_path / "ledger.db", "0018")) == 0o600


async def test_a_deleted_payload_is_overwritten(sqlite_url: str, tmp_path: Path) -> None:
    def add(connection: Connection) -> None:
        connection.execute(insert(PAYLOAD), [{"id": n, "body": CANARY * 2000, "stored_us": 1} for n in range(1, 9)])

    for work in (add, lambda connection: connection.execute(delete(PAYLOAD))):
        store = open_store(sqlite_url)
        await store.write(work)
        await store.close()
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert CANARY not in content(tmp_path)


def test_check_names_secrets_that_everybody_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, bits in (("key", 0o644), ("token", 0o604), ("hush", 0o640)):
        (tmp_path / name).write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        (tmp_path / name).chmod(bits)
    (tmp_path / "gapless.toml").write_text(
        '[private]\ntoken_file = "token"\n[[source]]\nname = "acme"\nprovider = "stripe"\n[source.options]\n'
        'api_key_file = "key"\nwebhook_secret_file = "hush"\nlivemode = false\n'
        '[[destination]]\nname = "books"\nurl = "https://127.0.0.1/x"\nsecret_file = "key"\n'
    )
    done = CliRunner().invoke(main, ["check", "--offline"], env=ENVIRONMENT)
    told = [line for line in done.output.splitlines() if "everybody on this machine" in line]
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in told] == ["private", "destination books", "source acme"]
    assert "hush" not in done.output


async def test_errors_of_the_database_show_no_values(store_url: str) -> None:
    store = open_store(store_url)

    def fail(connection: Connection) -> None:
        rows = [{"id": 1, "body": b"canary-payload", "headers": "canary-header", "stored_us": 1}] * 2
        for row in rows:
            connection.execute(insert(PAYLOAD).values(**row))

    with pytest.raises(Exception) as caught:  # noqa: PT011 - each driver has its own
        await store.write(fail)
    await store.close()
    errors, error = list[str](), caught.value
    while error is not None:
        errors, error = [*errors, str(error)], error.__cause__
    assert len(errors) > 1
    assert "canary" not in " ".join(errors)
