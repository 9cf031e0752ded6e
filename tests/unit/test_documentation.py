"""The pages: their links lead somewhere, the map names what is there, and the tables of settings are the code's."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import msgspec
import pytest

from gapless.destinations import registry
from gapless.settings import Settings, load, tree

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MAP = ROOT / "docs/architecture.md"
PLACEHOLDER = re.compile(r"\b(X|NOUN|NNNN_what)\b")
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")
TABLES = {
    "Top level": tree.Settings,
    "`[store]`": tree.StoreSettings,
    "`[encryption]`": tree.EncryptionSettings,
    "`[public]`": tree.PublicSettings,
    "`[private]`": tree.PrivateSettings,
    "`[oidc]`": tree.OidcSettings,
    "`[connections]`": tree.ConnectionSettings,
    "`[retention]`": tree.RetentionSettings,
    "`[quarantine]`": tree.QuarantineSettings,
    "`[log]`": tree.LogSettings,
    "`[[source]]`": tree.SourceSettings,
    "`[[destination]]`": tree.DestinationSettings,
}
KINDS = {f'`type = "{kind}"`': kind for kind in registry.kinds()}
MINIMUM = {
    "`[[source]]`": 'name = "acme"\nprovider = "stripe"\noptions = { api_key_env = "KEY" }\n',
    "`[[destination]]`": 'name = "billing"\nurl = "https://billing.example/"\nsecret_env = "SECRET"\n',
}
ENVIRON = {"KEY": "rk_live_1", "SECRET": "whsec_1"}


def without_code(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    return [found["target"] for found in LINK.finditer(without_code(page))]


def anchors(page: Path) -> Iterator[str]:
    """The anchors of the headings, as forges make them."""
    for heading in re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" not in target:
            there = (page.parent / target).resolve() if target else page
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), link


def test_readme_links_resolve_from_the_package_index() -> None:
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    found = links(README)
    assert len(found) > 8
    for link in found:
        assert link.startswith(base), link
        assert (ROOT / link.removeprefix(base)).is_file(), link


def test_readme_tests_with_the_command_of_ci() -> None:
    command = "uv run --extra test pytest"
    assert f"pip install uv && {command}\n" in README.read_text()
    assert command in (ROOT / ".ci/run").read_text()


def test_the_map_names_paths_that_exist() -> None:
    bases = [ROOT, ROOT / "app/gapless", ROOT / "reconcilers/gapless_reconcilers"]
    for path in re.findall(r"`([\w.-]+/[\w./-]+)`", without_code(MAP)):
        assert PLACEHOLDER.search(path) or any((base / path).exists() for base in bases), path


def test_the_map_describes_every_package_by_its_modules() -> None:
    packages = {path.name for path in (ROOT / "app/gapless").iterdir() if path.is_dir() and path.name[0] != "_"}
    paragraphs = dict(re.findall(r"^\*\*`(\w+)`\*\* (.*?)^$", without_code(MAP), re.MULTILINE | re.DOTALL))
    assert packages <= paragraphs.keys()
    for package in packages:
        for module in re.findall(r"`(\w+\.py)`", paragraphs[package]):
            assert (ROOT / "app/gapless" / package / module).exists(), (package, module)


def test_the_map_draws_the_layers_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [set(re.findall(r"gapless[\w.]*", row)) for row in contracts[0]["layers"]]
    drawn = re.search(r"^```text\n(cli .*?)```", MAP.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert drawn
    rows = [re.split(r" {2,}", line)[0].split(" | ") for line in drawn[1].splitlines()]
    assert [{name if "." in name else f"gapless.{name}" for name in row} for row in rows] == [
        {name for name in row if importlib.util.find_spec(name)} for row in layers
    ]


def documented() -> dict[str, dict[str, str]]:
    """{heading: {key: default, as it is written}}."""
    parts = re.split(r"^##+ (.*)$", (ROOT / "docs/configuration.md").read_text(), flags=re.MULTILINE)
    rows = {
        heading: dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", part, re.MULTILINE))
        for heading, part in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: table for heading, table in rows.items() if table}


def keys_of(heading: str) -> set[str]:
    """The keys of the code that stand in this table."""
    if heading in KINDS:
        return {field.name for field in msgspec.structs.fields(registry.load(KINDS[heading]).Options)}
    cls = TABLES[heading]
    elsewhere = {f.name for f in fields(cls) if cls is tree.Settings and {"section", "named"} & f.metadata.keys()}
    return {f.name for f in fields(cls)} - elsewhere - ({"options"} if cls is tree.DestinationSettings else set())


def test_the_page_of_settings_has_every_key() -> None:
    assert documented().keys() == TABLES.keys() | KINDS.keys()
    for heading, table in documented().items():
        assert table.keys() == keys_of(heading), heading


def loaded(folder: Path, *, with_defaults: bool) -> Settings:
    """What the page says is the default, written down and loaded; or only what must be there."""
    file = folder / "gapless.toml"
    lines = []
    for heading in TABLES:
        lines += [] if heading == "Top level" else [heading.strip("`"), MINIMUM.get(heading, "")]
        if with_defaults:
            defaults = documented()[heading].items()
            lines += [f"{key} = {default.strip('`')}" for key, default in defaults if default.startswith("`")]
    file.write_text("\n".join(lines))
    return load(file, ENVIRON)


def test_the_page_of_settings_has_the_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, with_defaults=True) == loaded(tmp_path, with_defaults=False)


def test_the_page_of_settings_has_the_defaults_of_each_kind() -> None:
    for heading, kind in KINDS.items():
        for field in msgspec.structs.fields(registry.load(kind).Options):
            default = documented()[heading][field.name]
            if default.startswith("`"):
                value = tomllib.loads(f"value = {default.strip('`')}")["value"]
                made = field.default_factory() if callable(field.default_factory) else field.default
                assert (tuple(value) if isinstance(value, list) else value) == made, (heading, field.name)


def test_the_page_of_settings_says_what_has_no_default() -> None:
    for heading, cls in TABLES.items():
        by_name = {f.name: f for f in fields(cls)}
        for key, default in documented()[heading].items():
            field = by_name[key]
            is_required = field.default is MISSING and field.default_factory is MISSING
            is_none = (field.default is None and key not in ("start", "since")) or key == "options"  # None is "now"
            assert default.startswith("`") == (not is_required and not is_none), (heading, key)
            assert (default == "required") == is_required, (heading, key)
