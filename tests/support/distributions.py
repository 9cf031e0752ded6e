"""Outside packages for a test: found by their entry points, as if they were installed."""

from pathlib import Path


def add_distribution(folder: Path, name: str, code: str, *, group: str, entry: str, target: str) -> None:
    """Write a module `name` into `folder`, a directory on `sys.path`, and register `target` of it as `entry`."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {name}:{target}\n")
