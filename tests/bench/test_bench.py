"""That the bench runs at all; what it measures is nobody's assertion here."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

pytestmark = pytest.mark.timeout(1900)
ROOT = Path(__file__).parents[2]


def quick(part: str, path: Path) -> list[dict[str, Any]]:
    """One short round on SQLite."""
    command = [sys.executable, "tests/bench", "--quick", "--only", part, "--postgres", "", "--json", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=1800, capture_output=True)
    rows: list[dict[str, Any]] = json.loads(path.read_text())[part]
    return rows


def test_the_bench_loads_each_server_and_finds_stored_what_was_acknowledged(
    tmp_path: Path, absent: Callable[[str, str], NoReturn]
) -> None:
    if not shutil.which("wrk"):
        absent("wrk", "it is not on the PATH")
    rows = quick("ingest", tmp_path / "bench.json")
    assert {row["variant"] for row in rows} == {"gapless", "bare", "session"}
    assert all(row["acked_per_s"] > 0 and not row["not_2xx"] and not row["broken"] for row in rows)
    assert all(row["stored"] >= row["acked"] for row in rows if row["variant"] != "bare")


def test_the_bench_delivers_what_waits_in_a_ledger(tmp_path: Path) -> None:
    rows = quick("delivery", tmp_path / "bench.json")
    assert {(row["variant"], row["waiting"]) for row in rows} == {("bare", 0), ("sqlite", 4_000)}
    assert all(row["delivered"] > 0 for row in rows)


def test_the_bench_reads_every_account_of_a_platform(tmp_path: Path) -> None:
    (row,) = quick("accounts", tmp_path / "bench.json")
    assert (row["accounts"], row["requests"]) == (50, 51)
    assert row["most_per_s"] <= 100


def test_a_flood_of_forgeries_costs_no_genuine_webhook_and_displaces_nothing_from_the_quarantine(
    tmp_path: Path,
) -> None:
    rows = quick("forged", tmp_path / "bench.json")
    assert all(row["acked"] == row["genuine"] for row in rows)
    (flooded,) = [row for row in rows if row["variant"] == "gapless" and row["flood"]]
    assert flooded["refused"] == 600
    assert {name: flooded["kept"][name] for name in ("signature", "stale", "malformed")} == dict.fromkeys(
        ("signature", "stale", "malformed"), 5
    )


def test_every_page_answers_from_a_made_ledger(tmp_path: Path) -> None:
    rows = quick("large", tmp_path / "bench.json")
    assert {"overview", "search by id", "event", "missed", "metrics", "API: by object"} <= {row["page"] for row in rows}


def test_strangers_keep_no_genuine_webhook_out(tmp_path: Path) -> None:
    rows = quick("strangers", tmp_path / "bench.json")
    assert all(row["acked"] == row["genuine"] and row["is_ready"] for row in rows)
    assert len(rows) == 5


def test_the_bench_reads_a_feed_and_each_pass_finds_the_one_event_in_a_thousand_that_is_missing(tmp_path: Path) -> None:
    rows = quick("passes", tmp_path / "bench.json")
    assert [row["found"] for row in rows if row["reader"] == "sqlite"] == [10, 10]
    assert {row["listed"] for row in rows} == {10_000}


def test_the_simulation_finds_every_loss_within_the_grant(tmp_path: Path) -> None:
    rows = quick("recovery", tmp_path / "bench.json")
    assert {row["vendor"] for row in rows} == {"Stripe", "Stripe floor", "GitHub"}
    assert all(row["losses"] and not row["still_lost"] and row["all"]["longest_s"] < 86_400 for row in rows)
    assert all(row["grant_used"] < 0.5 for row in rows)
    assert all(row["all"]["median_s"] <= 45 and row["all"]["p99_s"] <= 120 for row in rows if row["vendor"] == "Stripe")


def test_the_daemon_reads_as_the_simulation_says(tmp_path: Path) -> None:
    (row,) = quick("agreement", tmp_path / "bench.json")
    daemon, simulation = row["daemon"], row["simulation"]
    assert not daemon["still_lost"]
    assert abs(daemon["requests"] - simulation["requests"]) < 0.2 * simulation["requests"]
    assert abs(daemon["median_s"] - simulation["median_s"]) < 0.2 * simulation["median_s"]
