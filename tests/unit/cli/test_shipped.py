"""The ready-made files, as the commands print and write them."""

import tomllib
from pathlib import Path

from click.testing import CliRunner, Result

from gapless.cli.main import main

CONFIG = Path(__file__).parents[3] / "config"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments])


def test_the_example_is_printed_as_it_is() -> None:
    printed = run("example")
    assert printed.output == (CONFIG / "gapless.example.toml").read_text()
    assert tomllib.loads(printed.output)["source"]


def test_every_ready_made_file_is_written(tmp_path: Path) -> None:
    written = run("files", str(tmp_path / "new"))
    assert written.exit_code == 0
    for path in filter(Path.is_file, CONFIG.rglob("*")):
        assert (tmp_path / "new" / path.relative_to(CONFIG)).read_bytes() == path.read_bytes()
    assert str(tmp_path / "new" / "prometheus" / "alerts.yml") in written.output


def test_no_file_is_written_over_unless_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    alerts = tmp_path / "prometheus" / "alerts.yml"
    alerts.write_text("mine")
    refused = run("files", str(tmp_path))
    assert refused.exit_code == 2
    assert f"{alerts} is there already" in refused.output
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["alerts.yml"]
    assert run("files", str(tmp_path), "--force").exit_code == 0
    assert alerts.read_text() != "mine"
