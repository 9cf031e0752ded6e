"""Times in and out, exit codes, and the help that every command has."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from gapless.cli.common import Exit, failing_clearly
from gapless.cli.main import LazyCommand, main
from gapless.cli.param_types import TIME
from gapless.ledger.engine import StoreInvalid, StoreUnavailable
from gapless_reconcilers.kit.errors import ProviderUnavailable


def test_moments_are_ages_days_and_instants_and_always_utc() -> None:
    assert TIME.convert("2026-01-31", None, None) == datetime(2026, 1, 31, tzinfo=UTC)
    assert TIME.convert("2026-01-31T08:00:00+02:00", None, None) == datetime(2026, 1, 31, 6, tzinfo=UTC)
    before = datetime.now(UTC)
    assert before <= TIME.convert("30d", None, None) + timedelta(days=30) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["soon", "30", "5 parsecs", "2026-13-01", ""])
def test_other_words_are_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(click.BadParameter, match="use 30d"):
        TIME.convert(text, None, None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreInvalid("no"), Exit.USAGE),
        (StoreUnavailable("no"), Exit.UNAVAILABLE),
        (ProviderUnavailable("no"), Exit.UNAVAILABLE),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [StoreUnavailable("no")])]), Exit.UNAVAILABLE),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_an_exit_code(
    error: Exception, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, failing_clearly(debug=False):
        raise error
    assert ended.value.code == code
    assert capsys.readouterr().err == "gapless: no\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), failing_clearly(debug=False):
        raise ExceptionGroup("tasks", [ZeroDivisionError()])


def test_debug_leaves_the_error_as_it_is() -> None:
    with pytest.raises(StoreInvalid), failing_clearly(debug=True):
        raise StoreInvalid("no")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, listed in group.commands.items():
        command = listed.load() if isinstance(listed, LazyCommand) else listed
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", sorted(commands(main)), ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    assert "\x08" not in result.output
