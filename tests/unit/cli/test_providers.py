"""The tables in `docs/providers.md` equal the capabilities of the providers."""

import re
from pathlib import Path

from click.testing import CliRunner

from gapless.cli.main import main
from gapless_reconcilers.kit import registry

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/providers.md"


def printed(*options: str) -> str:
    result = CliRunner().invoke(main, ["providers", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_has_the_table_that_the_capabilities_make() -> None:
    marked = re.search(r"<!-- providers -->\n(.*?)<!-- /providers -->", PAGE.read_text(), re.DOTALL)
    assert marked
    assert marked[1] == printed("--markdown"), "put what `gapless providers --markdown` prints into docs/providers.md"


def test_the_page_has_the_table_of_the_ready_made_sources() -> None:
    marked = re.search(r"<!-- ready-made -->\n(.*?)<!-- /ready-made -->", PAGE.read_text(), re.DOTALL)
    files = sorted(str(path) for path in (ROOT / "reconcilers/gapless_reconcilers/declared").glob("*.toml"))
    assert marked
    assert marked[1] == printed("--markdown", *files), (
        "put `gapless providers --markdown reconcilers/gapless_reconcilers/declared/*.toml` there"
    )


def test_a_ready_made_source_is_shown_by_its_name() -> None:
    assert "paddle" in printed("declared:paddle")
    result = CliRunner().invoke(main, ["providers", "declared:padle"])
    assert (result.exit_code, "wanted one of adyen" in result.output) == (2, True)


def test_an_unknown_provider_in_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text('[[source]]\nname = "acme"\nprovider = "rest_lst"\n')
    result = CliRunner().invoke(main, ["providers", str(tmp_path / "acme.toml")])
    assert (result.exit_code, "did you mean 'rest_list'" in result.output) == (3, True)


def test_every_provider_is_in_it_with_what_it_cannot_prove() -> None:
    lines = printed("--markdown").splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == list(registry.kinds())
    assert all(len(line.split(" | ")[6]) > 20 for line in lines)


def test_the_short_table_names_every_provider() -> None:
    assert all(kind in printed() for kind in registry.kinds())
