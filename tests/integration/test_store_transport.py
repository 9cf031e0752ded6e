"""The way to PostgreSQL: what `sslmode` demands is kept, and `gapless check` tells what is sent in the open."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gapless.cli.main import main
from gapless.ledger import transport


@pytest.mark.parametrize(
    ("url", "encrypted", "said"),
    [
        ("postgresql://u:pw@db.example/x", False, "in the open"),
        ("postgresql://u:pw@db.example/x?sslmode=disable", False, "in the open"),
        ("postgresql://u@10.0.0.5,db.example/x", False, "in the open"),
        ("postgresql://u@/x?host=db.example", False, "in the open"),
        ("postgresql://u@db.example/x?sslmode=require", True, "does not prove who it is"),
        ("postgresql://u@db.example/x", True, "does not prove who it is"),
        ("postgresql://u@db.example/x?sslmode=verify-full", True, None),
        ("postgresql://u@127.0.0.1/x", False, None),
        ("postgresql://u@[::1]:5433/x", False, None),
        ("postgresql:///x?host=/run/postgresql", False, None),
        ("postgresql:///x", False, None),
    ],
)
def test_a_way_that_others_can_read_is_told(url: str, encrypted: bool, said: str | None) -> None:
    problem = transport.problem_of(url, encrypted=encrypted)
    assert problem is None if said is None else said in (problem or "")
    assert "pw" not in (problem or "")


def test_check_asks_the_server_and_keeps_sslmode(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def check(url: str) -> str:
        return CliRunner().invoke(main, ["check", "--offline"], env={"GAPLESS_STORE__URL": url}).output

    assert "the connection stays on this machine" in check(postgres_url)
    mark = "&" if "?" in postgres_url else "?"
    demanded = check(f"{postgres_url}{mark}sslmode=require&host=127.0.0.1")
    assert "problem  store" in demanded, demanded
    assert "stays on this machine" not in demanded
