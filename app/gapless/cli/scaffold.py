"""A new declaration with its fixtures and its test, which passes as it stands: to be changed piece by piece."""

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Final

from gapless.errors import UserError

NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
SECRET: Final = "a made-up secret"  # noqa: S105 - of a fixture
_DECLARATION: Final = """\
# {name}: what is special about it. Sources: where each fact is from; read on …
[[source]]
name = "{name}"
provider = "rest_list"
{mode}
[source.options]
{api}unproven = "What cannot be proven, and which facts are not verified."

[source.options.event]
key = "id"                                       # the same in webhook and list; header:<name> if it is in a header
type = "type"                                    # or "{{resource}}.{{action}}"
time = "created_at"                              # "received" if a webhook names none
time_format = "rfc3339"                          # iso_utc, unix_s, unix_ms
object = "data.id"

[source.options.webhook.signature]
scheme = "hmac"                                  # timed_hmac, public_key, standard_webhooks, jwt, token, basic
header = "X-Signature"
digest = "sha256"
encoding = "hex"
signed = "{{body}}"                                # such as "v0:{{time}}:{{body}}", with time = "header:X-Timestamp"
secret_env = "{variable}_WEBHOOK_SECRET"
"""
_LIST: Final = """
[source.options.list]
path = "/events"
records = "data"
order = "newest_first"                           # oldest_first, unordered
page = {{ type = "cursor", param = "after", cursor = "data[-1].id", more = "has_more" }}
history = "30d"
grace = "1m"                                     # how late an event may be listed
[source.options.list.params]
limit = 100
since = "{{window.start|rfc3339}}"
until = "{{window.end|rfc3339}}"
"""
_API: Final = """\
base_url = "https://api.{name}.example"
auth = {{ type = "bearer", token_env = "{variable}_API_KEY" }}
"""
_SCENARIO: Final = """\
kind = "rest_list"
source = "Fields as in …; contents made up; signed with hmac"
options_file = "../../../{name}.toml"
now = 2026-11-20T12:20:00Z
stream = ""
{first}signed_with = "webhook.signature.secret"

[window]
start = 2026-11-20T11:20:00Z
end = 2026-11-20T12:20:00Z

[secrets]
{key}"webhook.signature.secret" = ["{secret}", "the one before"]
"""
_FIRST: Final = """\
first_url = "https://api.{name}.example/events?limit=100&since=2026-11-20T11:20:00Z&until=2026-11-20T12:20:00Z"
records = "data"
"""
_TEST: Final = '''\
"""{name} keeps the contract of providers."""

from pathlib import Path

import pytest

from gapless_reconcilers.testing import suite
from gapless_reconcilers.testing.suite.scenario import load_scenario

SCENARIO = load_scenario(Path(__file__).parent / "fixtures/rest_list/{name}")


@pytest.mark.parametrize("rule", suite.rules_for(SCENARIO).values(), ids=suite.rules_for(SCENARIO))
def test_{module}_keeps_the_contract(rule: suite.Rule) -> None:
    rule(SCENARIO)
'''
_SAMPLE: Final = """\
POST /webhooks/{name} HTTP/1.1
Content-Type: application/json
X-Signature: {signature}

{body}"""


def files(name: str, *, has_list: bool) -> dict[str, str]:
    """Return the files of a new declaration, by their paths. Raises `UserError` for a name that no source can have."""
    if not NAME.fullmatch(name) or len(name) > 40:  # noqa: PLR2004 - that of a source
        raise UserError(f"{name!r} is no name of a source; wanted 1 to 40 of a-z, 0-9 and single dashes between them")
    variable, module = name.upper().replace("-", "_"), name.replace("-", "_")
    webhook = _event("ev_2", "order.paid", "2026-11-20T12:10:00Z")
    body = json.dumps(webhook)
    signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    words = {"name": name, "variable": variable, "module": module, "secret": SECRET, "body": body}
    declaration = _DECLARATION.format(
        **words,
        mode="" if has_list else 'mode = "webhook"\nsilence_after = "1d"\n',
        api=_API.format(**words) if has_list else "",
    )
    scenario = _SCENARIO.format(
        **words,
        first=_FIRST.format(**words) if has_list else "",
        key='"auth.token" = "a made-up key"\n' if has_list else "",
    )
    folder = f"fixtures/rest_list/{name}"
    made = {
        f"{name}.toml": declaration + (_LIST.format(**words) if has_list else ""),
        f"test_{module}.py": _TEST.format(**words),
        f"{folder}/scenario.toml": scenario,
        f"{folder}/webhook.json": body,
        f"{folder}/headers.json": json.dumps({"x-signature": signature}) + "\n",
        f"{folder}/sample.http": _SAMPLE.format(**words, signature=signature),
    }
    if has_list:
        first = _event("ev_1", "order.made", "2026-11-20T12:00:00Z")
        page = {"data": [webhook, first], "has_more": False}
        expected = [{**_expected(each), "object_key": "o_7"} for each in (webhook, first)]
        made |= {f"{folder}/pages/1.json": _json(page), f"{folder}/expected.json": _json(expected)}
    return made


def write(name: str, folder: Path, *, has_list: bool) -> list[Path]:
    """Write the files of a new declaration below `folder` and return their paths.

    Raises `UserError` if one is there already, or `OSError`.
    """
    made = {folder / path: text for path, text in files(name, has_list=has_list).items()}
    if there := [path for path in made if path.exists()]:
        raise UserError(f"{there[0]} is there already; choose another name, or another folder with --into")
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(made)


def _event(key: str, event_type: str, at: str) -> dict[str, object]:
    return {"id": key, "type": event_type, "created_at": at, "data": {"id": "o_7"}}


def _expected(event: dict[str, object]) -> dict[str, object]:
    at = str(event["created_at"]).replace("Z", "+00:00")
    return {"key": event["id"], "type": event["type"], "occurred_at": at}


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
