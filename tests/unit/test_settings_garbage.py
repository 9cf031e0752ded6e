"""A configuration that makes no sense gets sentences, never a traceback: file and variables, mutated at random."""

import os
import random
from pathlib import Path

import pytest

from gapless.settings import SettingsInvalid, load

EXAMPLE = (Path(__file__).parents[2] / "config" / "gapless.example.toml").read_text(encoding="utf-8")
MANY = int(os.environ.get("GAPLESS_FUZZ", "1500")) // 10
SEED = int(os.environ.get("GAPLESS_FUZZ_SEED", "1"))
ODD = (
    "", "''", "[]", "{}", "[[]]", "-1", "0", "1e999", "nan", "true", "99999999999999999999", "1979-05-27T07:32:00Z",
    '"\\u0000"', '"' + "x" * 3000 + '"',
    '"\U0001f600"', "{ a = { b = [1, 'x'] } }", '"${HOME}"', '["a", 1]', '"5m5m"', "07:32:00",
)  # fmt: skip
SECRETS = (
    "DATABASE_URL", "AUDIT_KEY", "ENCRYPTION_KEYS", "PRIVATE_TOKEN", "METRICS_TOKEN", "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET", "OIDC_CLIENT_SECRET", "BILLING_SECRET", "BILLING_AUTHORIZATION",
)  # fmt: skip


def mutated(text: str, drawn: random.Random) -> str:
    """Change a few lines: another value, another key, gone, twice, cut, or moved."""
    lines = text.splitlines()
    for _ in range(drawn.choice((1, 1, 2, 5))):
        at = drawn.randrange(len(lines))
        key, equals, value = lines[at].partition(" = ")
        match drawn.randrange(7):
            case 0 | 1 | 2:
                lines[at] = f"{key} = {drawn.choice(ODD)}" if equals else drawn.choice(ODD)
            case 3:
                lines[at] = f"{drawn.choice((key + '_file', key + 'x', 'name', 'options', '[x]'))} = {value}"
            case 4:
                del lines[at]
            case 5:
                lines.insert(drawn.randrange(len(lines)), lines[at])
            case 6:
                lines[at] = lines[at][: drawn.randrange(len(lines[at]) + 1)]
    return "\n".join(lines)


def problems_of(file: Path, environ: dict[str, str]) -> tuple[str, ...]:
    try:
        load(file, environ)
    except SettingsInvalid as error:
        return error.problems
    return ()


def test_a_mutated_file_is_loaded_or_refused_in_sentences(tmp_path: Path) -> None:
    drawn, file, refused = random.Random(SEED), tmp_path / "gapless.toml", 0
    for _ in range(MANY):
        file.write_text(mutated(EXAMPLE, drawn), encoding="utf-8")
        environ = {name: drawn.choice(("", "x", "\x00", "sqlite:///x.db", "first:" + "1f" * 32)) for name in SECRETS}
        problems = problems_of(file, environ)
        refused += bool(problems)
        assert all(each.strip() and len(each) < 4000 for each in problems)
    assert refused > MANY // 2


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"\x00", b"[" * 5000, b"a = " + b"[" * 5000, b"a." * 3000 + b"b = 1"]
)
def test_a_file_that_is_no_toml_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "gapless.toml"
    file.write_bytes(content)
    if not content:
        assert load(file, {}).sources == ()
        return
    with pytest.raises(SettingsInvalid):
        load(file, {})
