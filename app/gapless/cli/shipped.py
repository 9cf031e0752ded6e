"""The ready-made files of `config/`, which the wheel carries as `gapless/shipped`."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

EXAMPLE = "gapless.example.toml"


def read_example() -> str:
    """Return the file that has every setting in its place."""
    return (_folder() / EXAMPLE).read_text(encoding="utf-8")


def files() -> Iterator[tuple[Path, bytes]]:
    """Yield each ready-made file: its path below the folder, and its content."""
    folder = _folder()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder), path.read_bytes()


def _folder() -> Path:
    """Return the folder of the installed package, or that of the checkout which this runs from."""
    package = Path(str(resources.files("gapless")))
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parents[1] / "config"
