"""The guide for authors of destinations, followed to the letter in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/adding-a-destination.md"
FILE = re.compile(r"^`(?P<name>[\w./-]+)`[^\n]*(?:\n[^\n]+)*:\n\n```\w+\n(?P<text>.*?)```", re.MULTILINE | re.DOTALL)


def test_the_guides_kind_passes_its_tests_and_is_used_by_its_name(tmp_path: Path) -> None:
    found = {each["name"]: each["text"] for each in FILE.finditer(GUIDE.read_text(encoding="utf-8"))}
    entry_points = "gapless_file-1.dist-info/entry_points.txt"
    assert found.keys() == {"gapless_file.py", "test_file.py", entry_points, "gapless.toml"}
    for name, text in found.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / entry_points).with_name("METADATA").write_text(
        "Metadata-Version: 2.1\nName: gapless-file\nVersion: 1\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        return done.stdout + done.stderr

    assert "2 passed" in run(*command, "test_file.py")
    program = str(Path(sys.executable).parent / "gapless")
    assert "file events.jsonl" in run(program, "check")
    wrong = (tmp_path / "gapless.toml").read_text().replace("path", "pat")
    (tmp_path / "gapless.toml").write_text(wrong)
    assert "there is no option pat; did you mean path?" in run(program, "check")
