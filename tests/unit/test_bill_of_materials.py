"""The bill of materials names every package that the lock pins."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_bill_has_every_pinned_package_and_its_hashes(tmp_path: Path) -> None:
    command = [sys.executable, ".ci/bill_of_materials.py", "requirements.lock", str(tmp_path / "bill.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    bill, lock = json.loads((tmp_path / "bill.json").read_text()), (ROOT / "requirements.lock").read_text()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    pinned = [line.split("==")[:2] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert len(bill["components"]) == len(pinned)
    assert {each["version"] for each in bill["components"]} == {version.split()[0] for _, version in pinned}
    assert sum(len(each["externalReferences"]) for each in bill["components"]) == lock.count("--hash=sha256:")
