"""The README's first command, as people call it: a process, its output and its exit code."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
DEMO = (sys.executable, "-P", "-m", "gapless", "demo")
WITHIN_S = 150
"""The demo itself gives up 90 s after its time."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Our own, with a directory for temporary files that a test can look into."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


@pytest.fixture
def run_demo(environ: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DEMO, *args], env=environ, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )

    return run


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def number(output: str, row: str) -> int:
    """The first number in a row of the table."""
    found = re.search(rf"^{re.escape(row)} +(\d+)", output, re.MULTILINE)
    assert found, f"no row {row!r} in\n{output}"
    return int(found[1])


def daemons_in(directory: Path) -> list[int]:
    """Processes whose environment names a configuration below `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"GAPLESS_CONFIG={directory}".encode() in process.read_bytes():
                found.append(int(process.parent.name))
        except OSError:
            continue
    return found


def test_gap_opens_and_closes(run_demo: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = run_demo("--for", "12s")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The gap is closed" in done.stdout
    events = number(done.stdout, "events at the provider")
    by_webhook, by_list = (number(done.stdout, f"in the ledger by {via}") for via in ("webhook", "list"))
    assert events == number(done.stdout, "at the consumer") == by_webhook + by_list
    assert by_list > 0
    assert number(done.stdout, "webhooks lost") > 0
    assert number(done.stdout, "attempts beyond the first") > 0
    assert "each with the same idempotency id" in done.stdout
    assert re.search(r"^receiver dead \(kill -9\) +\d", done.stdout, re.MULTILINE)
    assert re.match(r"console +http://127\.0\.0\.1:\d+", done.stdout), "the private listener's address comes first"
    assert list(tmp_path.iterdir()) == []
    assert daemons_in(tmp_path) == []


def test_gap_that_cannot_close_exits_with_1_and_names_events(
    run_demo: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_demo("--for", "6s", "--no-kill", "--drop", "0.5", "--hide-from-list", "invoice.paid")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "The gap is open" in done.stdout
    lacking = number(done.stdout, "events at the provider") - number(done.stdout, "at the consumer")
    missing = re.search(r"(\d+) events of the provider never reached the consumer: (.+)", done.stdout)
    assert missing
    assert int(missing[1]) == lacking > 0
    assert re.fullmatch(r"(evt_[0-9a-f]{24}(, )?)+( and \d+ more)?", missing[2])


def test_interrupted_demo_closes_its_gap_and_cleans_up(environ: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(DEMO, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "receiver killed" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()

    assert process.returncode == 0, output
    assert "The gap is closed" in output
    assert list(tmp_path.iterdir()) == []
    assert daemons_in(tmp_path) == []


def test_second_interrupt_ends_the_demo_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(DEMO, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "dropped" in line:
                break
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert daemons_in(tmp_path) == []


@pytest.mark.parametrize("option", ["--console-port", "--webhook-port", "--provider-port"])
def test_taken_port_is_said_with_its_option(
    run_demo: Callable[..., subprocess.CompletedProcess[str]], taken_port: int, option: str
) -> None:
    done = run_demo("--for", "6s", option, str(taken_port))

    assert done.returncode == 3
    assert f"127.0.0.1:{taken_port} is taken" in done.stderr
    assert option in done.stderr
    assert "Traceback" not in done.stderr


def test_provider_alone_prints_what_a_set_up_needs(
    run_demo: Callable[..., subprocess.CompletedProcess[str]], taken_port: int
) -> None:
    done = run_demo("--provider-only", "--for", "2s", "--webhook-url", f"http://127.0.0.1:{taken_port}/webhooks/x")

    assert done.returncode == 0, done.stderr
    base_url = re.search(r"provider +(http://127\.0\.0\.1:\d+)", done.stdout)
    assert base_url
    assert f'api_base = "{base_url[1]}"' in done.stdout
    assert re.search(r"export DEMO_API_KEY=sk_test_\w+", done.stdout)
    assert re.search(r"export DEMO_WEBHOOK_SECRET=whsec_\w+", done.stdout)
