"""Write the bill of materials of a release, as CycloneDX 1.6 in JSON: what `requirements.lock` pins, with its hashes.

python .ci/bill_of_materials.py requirements.lock bill.json

It asks no network: the lock is whole. Packages that only tests need are in it too, as the lock does not part them.
"""

import json
import re
import sys
from pathlib import Path

PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, object]]:
    """Return one component for each pinned package, in the order of the lock."""
    found: list[dict[str, object]] = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", lock, flags=re.MULTILINE)):
        pinned = PINNED.match(block)
        if pinned is None:
            continue
        name, version = re.sub(r"[-_.]+", "-", pinned[1]).lower(), pinned[2]
        address = f"pkg:pypi/{name}@{version}"
        hashes = [{"alg": "SHA-256", "content": each} for each in HASH.findall(block)]
        archives = [{"type": "distribution", "url": address, "hashes": [each]} for each in hashes]
        component = {"type": "library", "bom-ref": address, "name": name, "version": version, "purl": address}
        found.append({**component, "externalReferences": archives})
    return found


def main() -> None:
    """Write the bill that the arguments name."""
    lock, target = (Path(each) for each in sys.argv[1:3])
    listed = components(lock.read_text(encoding="utf-8"))
    if not listed:
        sys.exit(f"{lock} pins nothing")
    about = {"component": {"type": "application", "bom-ref": "gapless", "name": "gapless"}}
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": about, "components": listed}
    target.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    print(f"{len(listed)} packages")  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
