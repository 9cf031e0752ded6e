"""The guide for authors of providers, followed to the letter in an empty folder."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gapless_reconcilers.testing import suite
from gapless_reconcilers.testing.suite.scenario import load_scenarios

GUIDE = Path(__file__).parents[2] / "docs/adding-a-provider.md"
NAMED = r"^`(?P<name>[\w./-]+)`[^`\n]*(?:\n[^`\n]+|`[^`\n]*`[^`\n]*)*?:\n\n"
FILE = re.compile(NAMED + r"```\w+\n(?P<text>.*?)```", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The files of the guide's made-up vendor, by name."""
    whole = GUIDE.read_text(encoding="utf-8").partition("## A whole one")[2]
    return {found["name"]: found["text"] for found in FILE.finditer(whole)}


def write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") if name.endswith("webhook.json") else text, encoding="utf-8")


def test_the_guides_provider_passes_the_whole_suite_as_a_package_of_its_own(tmp_path: Path) -> None:
    found = files()
    assert {"gapless_acme.py", "test_acme.py", "gapless_acme-1.dist-info/entry_points.txt"} <= found.keys()
    write(tmp_path, found)
    (tmp_path / "gapless_acme-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: gapless-acme\nVersion: 1\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    done = subprocess.run(
        [*command, "test_acme.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\b2\d passed", done.stdout), done.stdout
    listed = [str(Path(sys.executable).parent / "gapless"), "providers"]
    told = subprocess.run(listed, env=environ, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "acme" in told


def test_the_same_vendor_declared_in_toml_passes_the_whole_suite(tmp_path: Path) -> None:
    found = files()
    declared = [line for line in found["acme.toml"].splitlines() if line.strip()]
    assert len(declared) < 25
    folder = tmp_path / "declared/rest_list/acme"
    texts = {name.removeprefix("fixtures/acme/"): text for name, text in found.items() if name.startswith("fixtures/")}
    texts |= {"scenario.toml": found["declared/rest_list/acme/scenario.toml"], "../../../acme.toml": found["acme.toml"]}
    write(folder, texts)
    (scenario,) = load_scenarios(tmp_path / "declared/rest_list")
    rules = suite.rules_for(scenario)
    assert len(rules) == len(suite.RULES) - 1  # it takes nothing away
    for rule in rules.values():
        rule(scenario)


def test_it_takes_fewer_than_a_hundred_lines_of_python() -> None:
    lines = [line for line in files()["gapless_acme.py"].splitlines() if line.strip()]
    assert len(lines) < 100
