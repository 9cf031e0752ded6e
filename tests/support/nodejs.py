"""Vendors' JavaScript, run by Node: their official packages are the definition of a genuine webhook."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

PACKAGES = (
    "@octokit/webhooks-methods@6.0.0",
    "@octokit/webhooks-examples@7.6.1",
    "@shopify/shopify-api@13.1.0",
    "axe-core@4.14.1",
)
WITHIN_S = 120
INSTALLED_WITHIN_S, ATTEMPTS = 40, 3
"""The installation takes 6 s; one whose connection hangs is begun anew."""
READ = """
import { readFileSync } from "node:fs";
const input = JSON.parse(readFileSync(0, "utf8"));
const answer = (value) => process.stdout.write(JSON.stringify(value));
"""
Javascript = Callable[[str, object], Any]


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory, absent: Callable[[str, str], NoReturn]) -> Path:
    """A folder with the packages, in `node_modules`."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            absent("node", f"{program} is not on the PATH")
    folder = tmp_path_factory.mktemp("javascript")
    failed = [_install(folder)]
    while failed[-1] is not None:
        if len(failed) == ATTEMPTS:
            absent("node", f"npm could not install {', '.join(PACKAGES)}: {failed[-1]}")
        failed.append(_install(folder))
    return folder


def _install(folder: Path) -> str | None:
    """Install the packages; return what went wrong."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLED_WITHIN_S, check=False)
    except subprocess.TimeoutExpired as error:
        return str(error)
    return done.stderr[-300:] if done.returncode else None


@pytest.fixture(scope="session")
def javascript(node_modules: Path) -> Javascript:
    """Runs a module that finds its `input` and calls `answer` once; returns what it answered."""

    def run(module: str, value: object) -> Any:
        path = node_modules / "run.mjs"
        path.write_text(READ + module, encoding="utf-8")
        done = subprocess.run(
            ["node", str(path)], input=json.dumps(value), capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
