"""What can be declared, what is refused, and how it is said."""

import copy
import tomllib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from declared import READY_MADE, WINDOW, build, changed, declaration

from gapless.settings import resolve_options, signing_secret
from gapless.settings.load import SettingsInvalid, load
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Grant, Order, Pool, Reading, Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

SECRETS = {"secret": [Secret("whsec_do_not_show")]}
TIMED = {"scheme": "timed_hmac", "header": "X-Acme", **SECRETS}
STANDARD = {"scheme": "standard_webhooks", **SECRETS}
GRANT = {"type": "client_credentials", "client_id": "c", "secret": Secret("acme_do_not_show")}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("list.page.type", "curser", r"option list\.page\.type is 'curser'; use one of cursor, link_header, next_url"),
        ("list.page.type", ..., r"option list\.page\.type is missing; use one of cursor"),
        (
            "list.page.moer",
            "x",
            r"no option 'list\.page\.moer' \(did you mean 'more'\?\); its options are: list\.page\.",
        ),
        ("list.recrods", "x", r"no option 'list\.recrods' \(did you mean 'records'\?\)"),
        ("auth.type", "berer", r"option auth\.type is 'berer'; use one of basic, bearer, client_credentials, header"),
        ("auth.token", ..., r"missing required field `token` - at `\$\.auth`"),
        ("auth.token", "acme_do_not_show", r"Expected `Secret`, got `str` - at `\$\.auth\.token`"),
        (
            "webhook.signature.scheme",
            "md5",
            r"option webhook\.signature\.scheme is 'md5'; use one of basic, body_token, hash, ",
        ),
        ("webhook.signature.signed", "{uri}{body}", r"signature\.signed has \{uri\}; use \{body\}, \{form\}"),
        ("webhook.signature.signed", "{url}", r"no \{body\}; what is not signed proves nothing"),
        ("webhook.signature.signed", "{url}{body}", r"signature\.url is empty; wanted our address exactly"),
        ("webhook.root", "events[0].entity", r"root is 'events\[0\]\.entity', which takes one .* write \[\] for each"),
        ("webhook.root", "a[-1]", r"root is 'a\[-1\]', which takes one element and drops the others"),
        ("webhook.root", "a[].b", r"root is 'a\[\]\.b' and many is false; set many = true"),
        ("list.records", "pages[0].rows", r"list\.records is 'pages\[0\]\.rows': an index takes one element"),
        ("list.item", "events[0]", r"list\.item is 'events\[0\]': an index takes one element and drops the others"),
        ("list.records", ..., r"missing required field `records` - at `\$\.list`"),
        ("list.order", "random", r"Invalid enum value 'random' - at `\$\.list\.order`"),
        ("list.params", {"since": "{window.begin|unix_s}"}, r"has \{window\.begin\|unix_s\} in its parameters; use "),
        ("list.params", {"since": "{window.start|iso}"}, r"has \{window\.start\|iso\} in its parameters; use "),
        ("list.params", {}, r"names no time and list\.order is \"oldest_first\": each pass would read all"),
        ("list.history", "30 moons", r"duration"),
        ("list.headers", {"AUTHORIZATION": "do_not_show"}, r"option list\.headers holds a credential; use auth"),
        ("list.page", {"type": "single"}, r"missing required field `most`"),
        ("event.time_format", "epoch", r"Invalid enum value 'epoch' - at `\$\.event\.time_format`"),
        ("errors", {"retry": "409"}, r"Expected `array`, got `str` - at `\$\.errors\.retry`"),
        ("base_url", ..., r"missing required field `base_url`"),
        ("base_url", "api.acme.example", r"option base_url is no plain address"),
        ("base_url", "ftp://api.acme.example", r"option base_url is no plain address"),
        ("base_url", "https://api.acme.example#f", r"option base_url is no plain address"),
        ("base_url", "https://u:do_not_show@api.acme.example", r"option base_url is no plain address"),
        ("list.path", "events", r"option list\.path is 'events'; wanted a path that begins with /"),
        ("list.path", "@evil.example/e", r"option list\.path is '@evil\.example/e'"),
        ("list.path", "/events?sort=desc", r"its parameters in list\.params"),
        ("list.path", "/events/{window.start|unix_s}", r"its parameters in list\.params"),
        ("list.headers", {"X": "{window.start|unix_s}"}, r"option list\.headers has braces"),
        ("list.headers", {"X Y": "1"}, r"'X Y' is no name of a header"),
        ("list.resolution", "1ms", r"list\.resolution is finer than \{window\.start\|unix_s\} can say"),
        ("list.resolution", "0s", r"list\.resolution is nothing"),
        ("list.grace", -1, r"list\.grace or list\.history is negative"),
        ("list.grace", float("inf"), r"duration - at `\$\.list\.grace`"),
        ("list.grace", "99999999999999d", r"duration - at `\$\.list\.grace`"),
        ("rate", 0, r"rate is 0\.0; wanted requests a second, more than 0"),
        ("rate", float("nan"), r"rate is nan"),
        ("least_interval", -1, r"least_interval is negative"),
        ("grant", {"requests": 5, "period": "0s"}, r"grant\.period is nothing"),
        ("grant", {"requests": 0, "period": "1m"}, r"`int` >= 1 - at `\$\.grant\.requests`"),
        ("grant", {"requests": 5, "period": "1m", "pool": "world"}, r"'world' - at `\$\.grant\.pool`"),
        ("event.key", "{id", r"event\.key is '\{id'; wanted a path, or a text with whole paths in braces"),
        ("event.type", "", r"event\.type is ''"),
        ("errors", {"ignore": [200]}, r"errors\.ignore has 200, which does not mean that there are no events"),
        ("errors", {"ignore": [429]}, r"errors\.ignore has 429"),
        ("errors", {"retry": [200]}, r"errors has 200, which refuses nothing; wanted statuses from 400 to 599"),
        ("webhook.unlisted", [""], r"webhook\.unlisted has an empty text"),
        ("webhook.signature.header", "", r"signature\.header is empty or there is a field too"),
        ("webhook.signature", {**TIMED, "signed": "{body}"}, r"signature\.signed has no \{time\}"),
        ("webhook.signature", {**TIMED, "separator": "="}, r"signature\.separator, name and time cannot part"),
        ("webhook.signature", {**TIMED, "name": "t"}, r"signature\.separator, name and time cannot part"),
        ("webhook.signature", {**TIMED, "tolerance": 0}, r"signature\.tolerance is nothing"),
        ("webhook.signature", {**STANDARD, "tolerance": 0}, r"signature\.tolerance is nothing"),
        ("auth", {**GRANT, "token_path": "@evil.example/t"}, r"option auth\.token_path is '@evil\.example/t'"),
    ],
)
def test_a_declaration_that_cannot_work_names_the_option(path: str, value: object, message: str) -> None:
    table = changed(path, value)
    if "|unix_s} can say" in message.replace("\\", ""):
        table["list"]["params"] = {"since": "{window.start|unix_s}"}
    with pytest.raises(OptionsInvalid, match=message) as caught:
        build(table)
    assert "do_not_show" not in str(caught.value)


def test_a_list_that_is_asked_by_post_cannot_be_followed_by_address() -> None:
    table = changed("list.page", {"type": "next_url", "url": "next"})
    table["list"]["json"] = {"since": "{window.start|unix_s}"}
    with pytest.raises(OptionsInvalid, match="names addresses, which cannot be requested by POST"):
        build(table)


def test_the_declaration_is_not_changed() -> None:
    table = declaration()
    before = copy.deepcopy(table)
    build(table)
    assert table == before


def test_no_secret_of_a_table_is_shown() -> None:
    provider = build(declaration())
    assert "do_not_show" not in repr(vars(provider)) + repr(provider.auth()) + provider.budget_scope()


def test_a_grant_is_declared_and_may_be_shared_by_all_accounts() -> None:
    alone = build(declaration())
    assert alone.capabilities.effective_grant is None
    stated = {"requests": 240, "period": "1m", "source": "acme.example", "read_on": date(2026, 11, 27)}
    own = build(changed("grant", stated))
    assert own.capabilities.grant == Grant(**{**stated, "period": timedelta(minutes=1)})
    assert own.budget_scope() == alone.budget_scope()
    shared = build(changed("grant", {**stated, "pool": "address", "read_on": "2026-11-27"}))
    assert shared.capabilities.grant == replace(own.capabilities.grant, pool=Pool.ADDRESS)
    assert shared.budget_scope() == "rest_list:api.acme.example"
    assert build(changed("least_interval", "1m")).capabilities.least_interval == timedelta(minutes=1)


def test_credentials_that_would_travel_unencrypted_are_told() -> None:
    assert build(declaration()).option_problems() == []
    assert build(changed("base_url", "http://127.0.0.1:80")).option_problems() == []
    assert "unencrypted" in build(changed("base_url", "http://api.acme.example")).option_problems()[0]


def test_a_secret_that_can_verify_nothing_is_told() -> None:
    standard = changed("webhook.signature", {**STANDARD, "secret": [Secret("whsec_not base64")]})
    blank = changed("webhook.signature", {**TIMED, "secret": [Secret(" ")]})
    for table in (standard, blank):
        assert "can verify nothing" in build(table).option_problems()[0]


def test_a_token_is_asked_for_once_and_not_with_each_request() -> None:
    provider = build(changed("auth", {**GRANT, "token_path": "/oauth/token"}))
    assert provider.auth() is provider.auth()


def test_a_header_that_is_declared_takes_the_place_of_ours() -> None:
    request = build(changed("list.headers", {"Accept": "application/vnd.acme+json"})).first_request("", WINDOW)
    assert request.headers.get_list("accept") == ["application/vnd.acme+json"]


def test_secrets_in_tables_are_told_to_settings() -> None:
    assert registry.secret_fields("rest_list") == {
        "auth.token": "one",
        "auth.username": "one",
        "auth.password": "one",
        "auth.secret": "one",
        "auth.key": "one",
        "auth.refresh_token": "one",
        "webhook.handshake.token": "one",
        "webhook.signature.secret": "many",
    }


def test_what_is_declared_is_what_the_engine_is_told() -> None:
    provider = build(changed("list.history", "30d"))
    known = provider.capabilities
    assert (known.reading, known.order, known.history) == (Reading.WINDOW, Order.OLDEST_FIRST, timedelta(days=30))
    walked = changed("list.params", {})
    walked["list"]["order"] = "newest_first"
    assert build(walked).capabilities.reading is Reading.WALK


@pytest.mark.parametrize(
    ("written", "filled"),
    [
        ("{window.start|unix_s}", "1795173600"),
        ("{window.end|unix_ms}", "1795177200000"),
        ("{window.before_start|unix_s}", "1795173599"),
        ("{window.start|rfc3339}", "2026-11-20T11:20:00Z"),
        ("[{window.start|unix_s},{window.end|unix_s})", "[1795173600,1795177200)"),
        ("plain", "plain"),
    ],
)
def test_moments_are_written_out(written: str, filled: str) -> None:
    table = changed("list.params", {"between": written, "since": "{window.start|unix_s}"})
    assert build(table).first_request("", WINDOW).url.params["between"] == filled


def test_a_moment_alone_in_a_body_is_a_number() -> None:
    table = changed("list.json", {"range": {"from": "{window.start|unix_s}"}, "types": ["a", "b"]})
    request = build(table).first_request("", WINDOW)
    assert request.method == "POST"
    assert request.content == b'{"range":{"from":1795173600},"types":["a","b"]}'


CONFIG = """
[[source]]
name = "acme"
provider = "rest_list"
[source.options]
base_url = "https://api.acme.example"
auth = { type = "bearer", token_env = "ACME_TOKEN" }
[source.options.webhook]
signature = { scheme = "hmac", header = "X-Acme", secret_file = "acme.secret" }
[source.options.list]
path = "/events"
records = "data"
order = "oldest_first"
params = { since = "{window.start|unix_s}" }
page = { type = "link_header" }
"""


def test_secrets_in_tables_come_from_variables_and_files_alone(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    (tmp_path / "acme.secret").write_text("whsec_do_not_show\n")
    settings = load(tmp_path / "gapless.toml", {"ACME_TOKEN": "acme_do_not_show"})
    (source,) = settings.sources
    assert "do_not_show" not in repr(source)
    assert signing_secret(source, {"ACME_TOKEN": "acme_do_not_show"}) == Secret("whsec_do_not_show")
    with pytest.raises(SettingsInvalid, match=r"option options\.auth\.token_env: .*ACME_TOKEN"):
        load(tmp_path / "gapless.toml", {})
    (tmp_path / "gapless.toml").write_text(CONFIG.replace("token_env", "token"))
    with pytest.raises(SettingsInvalid, match=r"option options\.auth\.token is a secret and may not stand here"):
        load(tmp_path / "gapless.toml", {})


def test_an_option_in_a_table_has_an_environment_twin(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    (tmp_path / "acme.secret").write_text("x\n")
    twins = {
        "GAPLESS_SOURCE__ACME__OPTIONS__AUTH__TOKEN": "from_the_twin",
        "GAPLESS_SOURCE__ACME__OPTIONS__LIST__PATH": "/v2/events",
        "GAPLESS_SOURCE__ACME__OPTIONS__LIST__HISTORY": "7d",
        "ACME_TOKEN": "not_this_one",
    }
    (source,) = load(tmp_path / "gapless.toml", twins).sources
    assert source.options["list"]["path"] == "/v2/events"
    assert source.options["auth"]["token_env"] == "GAPLESS_SOURCE__ACME__OPTIONS__AUTH__TOKEN"


def test_what_the_environment_says_of_a_secret_takes_the_place_of_the_file_wherever_it_points(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    (tmp_path / "new").write_text("new\n")
    twins = {
        "GAPLESS_SOURCE__ACME__OPTIONS__AUTH__TOKEN_FILE": str(tmp_path / "new"),
        "GAPLESS_SOURCE__ACME__OPTIONS__WEBHOOK__SIGNATURE__SECRET_ENV": "LATER",
        "ACME_TOKEN": "leaked",
        "LATER": "later",
    }
    (tmp_path / "acme.secret").write_text("leaked\n")
    (source,) = load(tmp_path / "gapless.toml", twins).sources
    options: Any = resolve_options(source, twins)
    assert options["auth"]["token"] == Secret("new")
    assert options["webhook"]["signature"]["secret"] == [Secret("later")]


def test_a_table_and_a_list_can_be_given_by_the_environment_as_json(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    (tmp_path / "acme.secret").write_text("x\n")
    twins = {
        "GAPLESS_SOURCE__ACME__OPTIONS__LIST__PARAMS": '{"from": "{window.start|unix_s}"}',
        "GAPLESS_SOURCE__ACME__OPTIONS__WEBHOOK__UNLISTED": '["test_"]',
        "ACME_TOKEN": "t",
    }
    (source,) = load(tmp_path / "gapless.toml", twins).sources
    options: Any = source.options
    assert (options["list"]["params"], options["webhook"]["unlisted"]) == (
        {"from": "{window.start|unix_s}"},
        ["test_"],
    )


@pytest.mark.parametrize("path", READY_MADE, ids=lambda path: path.stem)
def test_a_ready_made_source_is_included_as_it_stands(path: Path, tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(f'include = ["{path}"]\n')
    declared = tomllib.loads(path.read_text())["source"][0]
    assert declared["name"] == path.stem
    with pytest.raises(
        SettingsInvalid,
        match=r"option options\.(auth|webhook\.signature|webhook\.handshake)\.(token|username|password|secret)_env",
    ):
        load(tmp_path / "gapless.toml", {})
    variables = {name: "x" for name in path.read_text().split('"') if name.isupper() and "_" in name}
    (source,) = load(tmp_path / "gapless.toml", variables).sources
    assert source.provider == "rest_list"


def test_workos_expects_the_types_that_its_list_is_asked_for_and_no_others() -> None:
    """A webhook of another type would make every listing suspect that does not show it."""
    (path,) = [path for path in READY_MADE if path.stem == "workos"]
    source = tomllib.loads(path.read_text())["source"][0]
    assert ",".join(source["types"]) == source["options"]["list"]["params"]["events"]


def test_every_ready_made_source_has_fixtures() -> None:
    fixtures = Path(__file__).parents[2] / "fixtures/rest_list"
    assert {path.stem for path in READY_MADE} == {path.name for path in fixtures.iterdir()}


def test_declarations_are_many_and_short_and_need_no_code_of_their_own() -> None:
    """Counts what the table of providers promises."""
    lines = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in READY_MADE}
    assert len(lines) >= 25
    assert max(lines.values()) < 60, max(lines, key=lines.__getitem__)
    assert {tomllib.loads(path.read_text())["source"][0]["provider"] for path in READY_MADE} == {"rest_list"}
