"""Commands that alerts, troubles, error messages and pages tell people to run exist, with the options named."""

import re
import shlex
from pathlib import Path

import click
import pytest

from gapless.cli.main import main

ROOT = Path(__file__).parents[3]
PAGES = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "architecture.md"]
"""All but the map, which shows commands that its reader adds."""
TEXTS = sorted([
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES, *(ROOT / "config").rglob("*.yml"),
    *(ROOT / "config").rglob("*.toml"), *(ROOT / "config").rglob("*.md"), *(ROOT / "app/gapless").rglob("*.py"),
])  # fmt: skip
IN_TEXT = re.compile(r"`gapless ([^`\n]+)`")
IN_BLOCK = re.compile(r"^gapless (?!=)(.+?)(?:  +\S.*| +#.*)?$", re.MULTILINE)


def named(path: Path) -> list[str]:
    """The commands that a text names, without the program."""
    text = path.read_text(encoding="utf-8")
    found = IN_TEXT.findall(text)
    if path.suffix == ".md":
        found += [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in IN_BLOCK.findall(block)]
    return [part.strip() for line in found for part in re.split(r"&&|\|\|?|>", line.replace("gapless ", ""))]


def problem(line: str) -> str | None:
    """The first word of the command that does not exist; None: all do, up to a placeholder."""
    command: click.Command = main
    words = shlex.split(line.replace("…", "x").replace("[", "").replace("]", ""))
    is_value = False
    for place, word in enumerate(words):
        if word.isupper():  # a placeholder, such as COMMAND
            return None
        if is_value:
            is_value = False
            continue
        if isinstance(command, click.Group) and not word.startswith("-"):
            context = click.Context(command)
            if command.get_command(context, word) is None:
                return word
            command = command.resolve_command(context, words[place:])[1] or command
        elif word.startswith("--"):
            options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0] not in options | {"--help", "--version"}:
                return word
            is_value = "=" not in word and any(
                word in each.opts and isinstance(each, click.Option) and not each.is_flag for each in command.params
            )
    return None


@pytest.mark.parametrize("path", [path for path in TEXTS if named(path)], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_a_text_names_exist(path: Path) -> None:
    wrong = [(line, word) for line in named(path) if (word := problem(line)) is not None]
    assert wrong == []


@pytest.mark.parametrize("line", ["dead list --nowhere", "nothing", "source nothing", "check --offlin"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert problem(line) is not None


def test_alerts_and_troubles_name_commands() -> None:
    assert len(named(ROOT / "config/prometheus/alerts.yml")) > 10
    assert sum(len(named(path)) for path in (ROOT / "app/gapless/status/troubles").glob("*.py")) > 10
