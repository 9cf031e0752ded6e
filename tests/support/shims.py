"""Compiles what is preloaded into a daemon: `wrong_clock.c` and `disk_log.c`."""

import shutil
import subprocess
from pathlib import Path

COMPILER = "gcc"


def can_compile() -> bool:
    """Return True if the compiler is there."""
    return shutil.which(COMPILER) is not None


def compile_shim(name: str, folder: Path) -> Path:
    """Compile `name`.c into `folder`, for `LD_PRELOAD`, and return the library."""
    source, library = Path(__file__).with_name(f"{name}.c"), folder / f"{name}.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library
