"""What is shipped for Prometheus and Alertmanager fits together: rules, runbooks and generated files."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest

from gapless.cli.main import main

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs/runbooks"
RULES = {name: (ROOT / "config/prometheus" / name).read_text() for name in ("alerts.yml", "slo.yml")}
ALERTS = re.findall(
    r"- alert: (\w+)\n(?:.*\n)*?        labels: \{ severity: (\w+) \}\n"
    r"        annotations:\n          runbook_url: https://gapless\.example/docs/(\S+)\n",
    "".join(RULES.values()),
)
"""Name, severity and page of each alert."""
SITUATIONS = {
    "receiver failing or absent": {
        "GaplessDown",
        "GaplessAbsent",
        "GaplessReceiverUnavailable",
        "GaplessAcceptedBurns",
    },
    "proof stalled": {"GaplessWatermarkStalled", "GaplessNeverCompared"},
    "history running out, or time that is unrecoverable": {"GaplessHistoryRunsOut", "GaplessUnrecoverable"},
    "deliveries too old": {"GaplessDeliveriesOld"},
    "a store that takes no writes": {"GaplessLedgerNotWritable"},
}


def script(name: str) -> Any:
    """A script of `.ci`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    names = [name for name, _, _ in ALERTS]
    assert len(names) == len(set(names)) == sum(text.count("- alert:") for text in RULES.values())
    assert {page for _, _, page in ALERTS} == {f"runbooks/{name}.md" for name in names}
    assert {path.stem for path in RUNBOOKS.iterdir()} == set(names)


@pytest.mark.parametrize("name", [name for name, _, _ in ALERTS])
def test_a_page_says_what_to_do(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        name, "What it means", "How to look", "What to do", "When it ends",
    ]  # fmt: skip
    assert text.count("\ngapless ") >= 2


def commands(name: str) -> list[str]:
    """The commands of a page, without the program."""
    return re.findall(r"^gapless (.*)$", (RUNBOOKS / f"{name}.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", [name for name, _, _ in ALERTS])
def test_the_commands_of_a_page_parse(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.csv").write_text("evt_1\n")
    for line in commands(name):
        command: click.Command | None = main
        context, words = click.Context(main), shlex.split(line)
        while isinstance(command, click.Group):
            _, command, words = command.resolve_command(context, words)
        assert command is not None, line
        command.make_context(command.name, words, parent=context).close()


def test_five_situations_wake_somebody_and_all_else_is_a_ticket() -> None:
    assert {name for name, severity, _ in ALERTS if severity == "page"} == set().union(*SITUATIONS.values())
    assert {severity for _, severity, _ in ALERTS} == {"page", "ticket"}


def test_the_service_levels_are_what_their_script_writes() -> None:
    assert script("slo").text() == RULES["slo.yml"], "python .ci/slo.py > config/prometheus/slo.yml"


def test_the_dashboards_are_what_their_script_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    committed = {path.name: path.read_text() for path in (ROOT / "config/grafana/dashboards").iterdir()}
    assert script("dashboards").files() == committed, "python .ci/dashboards.py"


def test_every_panel_links_to_a_runbook_and_to_the_console() -> None:
    for path in (ROOT / "config/grafana/dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        assert {each["name"] for each in board["templating"]["list"]} == {
            "datasource", "cluster", "namespace", "job", "source", "destination", "console",
        }  # fmt: skip
        for panel in board["panels"]:
            runbook, console = (each["url"] for each in panel["links"])
            assert (RUNBOOKS / runbook.rpartition("/")[2]).is_file()
            assert console.startswith("$console/")


def test_the_mixin_has_every_rule_and_dashboard() -> None:
    text = (ROOT / "config/mixin.libsonnet").read_text()
    files = re.findall(r"import(?:str)? '(.*?)'", text.partition("{")[2])
    shipped = [*(ROOT / "config/grafana/dashboards").iterdir(), *(ROOT / "config/prometheus").glob("[as]*.yml")]
    assert sorted(files) == sorted(str(path.relative_to(ROOT / "config")) for path in shipped)


def test_what_compose_mounts_is_there() -> None:
    mounted = re.findall(r"- \./(config/\S+?):", (ROOT / "compose.yaml").read_text())
    assert len(mounted) == 4
    assert all((ROOT / path).is_dir() for path in mounted)


def test_alertmanager_takes_the_example(absent: Callable[[str, str], NoReturn]) -> None:
    amtool = shutil.which("amtool") or absent("alertmanager", "amtool is not on the PATH")
    config = str(ROOT / "config/alertmanager/alertmanager.yml")
    done = subprocess.run([amtool, "check-config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for severity, receiver in (("page", "pager"), ("ticket", "tickets")):
        route = [amtool, "config", "routes", "test", f"--config.file={config}", f"severity={severity}"]
        assert subprocess.run(route, capture_output=True, text=True, check=True).stdout.strip() == receiver
