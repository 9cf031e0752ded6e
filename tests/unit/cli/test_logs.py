"""A log line holds neither variables nor commands for a terminal, whoever logs, in both formats."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from gapless.cli.commands.serve import start_logging
from gapless.connections.quiet import LOGGERS
from gapless.settings import LogFormat, LogSettings

TOKEN = "canary-in-a-variable"
FORMATS = pytest.mark.parametrize("form", list(LogFormat))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Give the root logger back as it was, and let every line of the libraries pass meanwhile."""
    handlers, level = logging.root.handlers[:], logging.root.level
    bounded = {name: logging.getLogger(name).filters[:] for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).filters.clear()
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for name, filters in bounded.items():
        logging.getLogger(name).filters[:] = filters


def fail(token: str, message: str = "it is broken", *, depth: int = 0) -> None:
    """Raise an error in frames whose variables hold a token."""
    headers = {"authorization": token}
    if depth:
        fail(headers["authorization"], message, depth=depth - 1)
    raise RuntimeError(message)


def log_failure(name: str, message: str = "it is broken", *, depth: int = 0) -> None:
    """Log an error as a library or a part of ours does."""
    try:
        fail(TOKEN, message, depth=depth)
    except RuntimeError:
        logging.getLogger(name).exception("failed_here")


@FORMATS
@pytest.mark.parametrize("name", ["gapless.deliver", "uvicorn.error", "litestar", "asyncio"])
def test_a_traceback_shows_no_variables(form: LogFormat, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogSettings(format=form))
    log_failure(name)
    text = capsys.readouterr().err
    assert ("failed_here" in text, "RuntimeError: it is broken" in text) == (True, True)
    assert "in fail" in text
    assert TOKEN not in text


@FORMATS
def test_a_traceback_is_bounded(form: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogSettings(format=form))
    log_failure("gapless", message="x" * 5_000_000, depth=300)
    text = capsys.readouterr().err
    assert "RuntimeError: xxx" in text
    assert len(text) < 40_000


@FORMATS
def test_a_task_that_nobody_awaited_is_logged_plainly(form: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        fail(TOKEN)

    async def forget() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "lost", "exception": await caught()})

    async def caught() -> BaseException:
        return (await asyncio.gather(work(), return_exceptions=True))[0] or AssertionError

    start_logging(LogSettings(format=form))
    asyncio.run(forget())
    text = capsys.readouterr().err
    assert "RuntimeError" in text
    assert TOKEN not in text


@FORMATS
def test_a_log_line_holds_no_control_characters(form: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogSettings(format=form))
    hostile = "\x1b]0;owned\x07\x9b2J\u202e\rstarted\n2026 [info] forged"
    logging.getLogger("gapless").warning("webhook_refused", extra={"error": hostile, "parts": [hostile]})
    log_failure("gapless", message=hostile)
    text = capsys.readouterr().err
    assert not set(text) & set("\x1b\x07\x9b\u202e\r")
    assert sum("webhook_refused" in line and "forged" in line for line in text.splitlines()) == 1


def test_json_lines_keep_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogSettings(format=LogFormat.JSON))
    logging.getLogger("gapless").warning("passed", extra={"count": 3, "names": ["a", "b"], "over": None})
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["count"], line["names"], line["over"]) == ("passed", 3, ["a", "b"], None)
