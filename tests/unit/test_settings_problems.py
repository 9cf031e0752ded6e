"""Each wrong configuration and the one sentence that it gets."""

# ruff: noqa: E501, Q003 - a row is one configuration and one sentence

from pathlib import Path

import pytest

from gapless.settings import SettingsInvalid, load
from gapless_reconcilers.kit import registry

HERE = "config gapless.toml: "
SRC = HERE + 'source "s": '
DST = HERE + 'destination "d": '
WHEN = "wanted a JMESPath expression that is true or false, such as data.object.currency == 'eur'"
DURATION = "wanted a duration such as 30s, 5m, 2h, 30d"
ENVIRON = {
    "KEY": "rk_live_1",
    "SECRET": "whsec_1",
    "EMPTY": " \n",
    "LINES": "a\nb",
    "SHORT": "hunter22-12",
    "DULL": "a" * 30,
    "TWICE": f"a:{'1f' * 32}\na:{'2e' * 32}",
    "ZEROS": f"a:{'0' * 64}",
    "CLEAR": f"clear:{'1f' * 32}",
}
SEALING = (
    "wanted an id (1 to 40 of a-z, 0-9, dot, dash, _), a colon, and 64 hex digits such as the output of "
    "`openssl rand -hex 32`"
)
GUESSED = "and could be guessed; wanted at least 24 random ones, such as the output of `openssl rand -hex 32`"


def src(more: str = "", options: str = 'api_key_env = "KEY"') -> str:
    return f'[[source]]\nname = "s"\nprovider = "stripe"\n{more}\n[source.options]\n{options}\n'


def dst(more: str = "", address: str = 'url = "http://h.example/"\nsecret_env = "SECRET"') -> str:
    return f'[[destination]]\nname = "d"\n{address}\n{more}\n'


TABLE = {
    # values
    src('every = "5 parsecs"'): f'{SRC}option every is "5 parsecs"; {DURATION}',
    src("every = 300"): f"{SRC}option every is 300; {DURATION}",
    src('every = "0s"'): f'{SRC}option every is "0s"; wanted a duration of 1s or longer',
    src('every = "99999999999d"'): f'{SRC}option every is "99999999999d"; {DURATION}',
    src('sweep = "never"'): f'{SRC}option sweep is "never"; {DURATION}, or "off"',
    src('mode = "both"'): f'{SRC}option mode is "both"; wanted one of hybrid, webhook, poll',
    src("mode = 3"): f"{SRC}option mode is 3; wanted one of hybrid, webhook, poll",
    src('start = "yesterday"'): f'{SRC}option start is "yesterday"; wanted "now", a date such as 2026-01-31, '
    "or a time with its zone such as 2026-01-31T08:00:00Z",
    src("start = 2026-01-31T08:00:00"): f'{SRC}option start is 2026-01-31 08:00:00; wanted "now", a date such as '
    "2026-01-31, or a time with its zone such as 2026-01-31T08:00:00Z",
    src("slices = 0"): f"{SRC}option slices is 0; wanted a whole number of slices from 1 to 64",
    src("slices = true"): f"{SRC}option slices is true; wanted a whole number of slices from 1 to 64",
    src("slices = 1.5"): f"{SRC}option slices is 1.5; wanted a whole number of slices from 1 to 64",
    src("requests_per_second = nan"): f"{SRC}option requests_per_second is nan; "
    "wanted a number of requests per second above 0",
    src("types = []"): f"{SRC}option types is a list; wanted a list of event types such as invoice.paid, invoice.* or *",
    src('types = ["a*b"]'): f"{SRC}option types is a list; "
    "wanted a list of event types such as invoice.paid, invoice.* or *",
    src('keep_unsubscribed = "yes"'): f'{SRC}option keep_unsubscribed is "yes"; wanted true or false',
    src("read_budget = 5"): f"{SRC}read_budget is 5; wanted a table [read_budget]",
    src("read_budget = { requests = 5 }"): f"{SRC}read_budget: option period is missing; {DURATION}",
    '[public]\nbody_limit = "1 megabyte"': f'{HERE}public: option body_limit is "1 megabyte"; '
    "wanted a size such as 500kB, 64MB, 1GiB",
    "[public]\nport = 70000": f"{HERE}public: option port is 70000; wanted a whole number of a TCP port from 0 to 65535",
    '[log]\nlevel = "loud"': f'{HERE}log: option level is "loud"; wanted one of debug, info, warning, error',
    'public_url = "hooks.acme.example"': f"{HERE}option public_url is a text of 18 characters; "
    "wanted an http:// or https:// address without a user name or a fragment",
    "store = 5": f"{HERE}store is 5; wanted a table [store]",
    # names and keys
    '[[source]]\nname = "s"': f"{SRC}option provider is missing; wanted a provider's name such as stripe",
    '[[source]]\nprovider = "stripe"\n[source.options]\napi_key_env = "KEY"': f"{HERE}source 1: option name is missing; "
    "wanted 1 to 40 of a-z, 0-9 and single dashes between them",
    src().replace('"s"', '"a--b"'): f'{HERE}source "a--b": option name is "a--b"; '
    "wanted 1 to 40 of a-z, 0-9 and single dashes between them",
    src().replace('"s"', '"Acme_1"'): f'{HERE}source "Acme_1": option name is "Acme_1"; '
    "wanted 1 to 40 of a-z, 0-9 and single dashes between them",
    src() + src(): f'{HERE}source "s" is defined twice; rename one',
    dst() + dst(): f'{HERE}destination "d" is defined twice; rename one',
    src('evry = "5m"'): f"{SRC}there is no option evry; did you mean every?",
    "[sourc]": f"{HERE}there is no option sourc; did you mean source?",
    "[public]\nprot = 1": f"{HERE}public: there is no option prot; did you mean port?",
    "source = 5": f"{HERE}source is 5; wanted tables [[source]]",
    # providers
    src().replace("stripe", "strype"): f"{SRC}there is no provider 'strype' (did you mean 'stripe'?); "
    f"known are: {', '.join(registry.kinds())}",
    # secrets
    src(options='api_key = "rk_live_pasted"'): f"{SRC}option options.api_key is a secret and may not stand here; "
    'name the variable that holds it, api_key_env = "…", or the file, api_key_file = "…"',
    src(options='api_key_env = "rk_live_pasted"'): f"{SRC}option options.api_key_env: it holds no variable's name "
    "(capital letters, digits, _); write the name of the variable that holds the secret",
    src(options='api_key_env = "UNSET"'): f"{SRC}option options.api_key_env: the variable UNSET is not set; "
    "set it, or name a file instead",
    src(options='api_key_env = "EMPTY"'): f"{SRC}option options.api_key_env: the variable EMPTY is empty; wanted a secret",
    src(options='api_key_env = "LINES"'): f"{SRC}option options.api_key has 2 secrets; wanted one",
    src(options="api_key_env = 5"): f"{SRC}option options.api_key_env is neither a text nor a list of texts; "
    "wanted names of variables or files",
    src(options='api_key_file = "rk_live_pasted"'): f"{SRC}option options.api_key_file: the file cannot be read "
    "(FileNotFoundError); check its path and its mode",
    dst('secret = "whsec_pasted"', 'url = "http://h.example/"'): f"{DST}option secret is a secret and may not stand "
    'here; name the variable that holds it, secret_env = "…", or the file, secret_file = "…"',
    dst('secret_file = "x"'): f"{DST}options secret_env and secret_file are both given; wanted one of them",
    '[store]\nurl = "postgresql://u:hunter2@h/db"': f"{HERE}store: option url is a secret and may not stand here; "
    'name the variable that holds it, url_env = "…", or the file, url_file = "…"',
    '[store]\nurl = "mysql://h/db"': f"{HERE}store: option url holds something else; "
    "wanted sqlite:///path or postgresql://host/database",
    '[store]\nurl_env = "KEY"': f"{HERE}store: option url_env holds something else; "
    "wanted sqlite:///path or postgresql://host/database",
    dst('headers = { Authorization = "Bearer hunter2" }'): f"{DST}option headers.authorization is a secret and may not "
    'stand here; use headers_env = { authorization = "NAME_OF_A_VARIABLE" }',
    dst('headers_env = { authorization = "UNSET" }'): f"{DST}option headers_env.authorization: the variable UNSET is not "
    "set; set it, or name a file instead",
    # what must fit together
    '[private]\nhost = "0.0.0.0"': f'{HERE}private: option host is "0.0.0.0", which others can reach; '
    "set token_env or token_file, or bind 127.0.0.1",
    '[private]\ntoken_env = "SHORT"': f"{HERE}private: option token has 11 characters, 9 different ones, {GUESSED}",
    '[private]\nmetrics_token_env = "DULL"': f"{HERE}private: option metrics_token has 30 characters, 1 different ones, {GUESSED}",
    '[private]\nconsumer_token_env = "SHORT"': f"{HERE}private: option consumer_token has 11 characters, 9 different ones, {GUESSED}",
    '[encryption]\nkeys_env = "SHORT"': f"{HERE}encryption: option keys: line 1 is no key; {SEALING}",
    '[encryption]\nkeys_env = "CLEAR"': f"{HERE}encryption: option keys: line 1 is no key; {SEALING}",
    '[encryption]\nkeys_env = "ZEROS"': f"{HERE}encryption: option keys: line 1 has a key that could be guessed; {SEALING}",
    '[encryption]\nkeys_env = "TWICE"': f"{HERE}encryption: option keys: line 2 has the id 'a' of a line before; wanted another id",
    '[encryption]\nkeys = "a:1f"': f"{HERE}encryption: option keys is a secret and may not stand here; "
    'name the variable that holds it, keys_env = "…", or the file, keys_file = "…"',
    '[encryption]\nkeys_env = "EMPTY"': f"{HERE}encryption: option keys_env: the variable EMPTY is empty; wanted a secret",
    '[store]\naudit_key_env = "SHORT"': f"{HERE}store: option audit_key has 11 characters, 9 different ones, {GUESSED}",
    src('allow_from = ["203.0.113.7/24"]'): f"{SRC}option allow_from is a list; wanted a list of networks such as "
    "203.0.113.0/24 or 2001:db8::/32, without host bits, at least one",
    src("allow_from = []"): f"{SRC}option allow_from is a list; wanted a list of networks such as "
    "203.0.113.0/24 or 2001:db8::/32, without host bits, at least one",
    '[public]\ncertificate = ""': f'{HERE}public: option certificate is ""; wanted the path of a file',
    "[private]\nport = 8000": f"{HERE}private: option port is 8000, as in public; wanted another one",
    src('every = "1h"'): f'{SRC}option every is longer than every_max; raise every_max, or set pace = "interval"',
    dst(address=""): f"{DST}option url is missing; wanted the address of a handler, or type = \"python\" with a target",
    dst(address='url = "http://h.example/"'): f'{DST}option secret_env is missing; signature "standard" needs secret_env '
    'or secret_file; or set signature = "none"',
    dst('target = "m:f"'): f'{DST}option target is for type "python"; leave it out, or change type',
    dst('type = "python"', 'target = "m.f"'): f'{DST}option target is "m.f"; wanted module:function',
    dst('type = "python"', ""): f'{DST}option target is missing; wanted module:function, or type = "http" with a url',
    dst('type = "python"\ntarget = "m:f"', 'url = "http://h.example/"'): f'{DST}option url is for type "http"; '
    "leave it out, or change type",
    dst('backoff_first = "7h"'): f"{DST}option backoff_first is longer than backoff_max; wanted it to be shorter, or equal",
    src() + dst('sources = ["t"]'): f'{DST}option sources names "t", which is no source; there are: s',
    # what one type of destination has
    dst('type = "fax"'): f'{DST}option type is "fax"; wanted one of http, kafka, nats, postgres, python, rabbitmq, sqs',
    dst("type = 3"): f"{DST}option type is 3; wanted one of http, kafka, nats, postgres, python, rabbitmq, sqs",
    dst('ulr = "http://h.example/"'): f"{DST}there is no option ulr; did you mean url?",
    dst('taget = "m:f"', 'type = "python"\ntarget = "m:f"'): f"{DST}there is no option taget; did you mean target?",
    dst('options = { url = "x" }'): f"{DST}there is no option options; docs/configuration.md has them all",
    dst(address='url = "ftp://h.example/"\nsecret_env = "SECRET"'): f"{DST}option url is a text of 16 characters; "
    "wanted an http:// or https:// address without a user name or a fragment",
    dst('signature = "provider"\nprevious_secret_env = "SECRET"'): f"{DST}option previous_secret_env is for "
    'signature = "standard", where a delivery can have two signatures; leave it out',
    dst('signature = "provider"\nformat = "cloudevents-binary"'): f"{DST}option format is for other signatures than "
    '"provider", whose body the provider renders; leave it out',
    dst("when = \"a ==\""): f'{DST}option when is "a =="; {WHEN}; Invalid jmespath expression: Incomplete expression',
    dst("when = \"size(a) > `1`\""): f'{DST}option when is "size(a) > `1`"; {WHEN}; there is no function size; '
    "there are abs, avg, ceil, contains, ends_with, floor, join, keys, length, map, max, max_by, merge, min, min_by, "
    "not_null, reverse, sort, sort_by, starts_with, sum, to_array, to_number, to_string, type, values",
    dst("when = \"contains(a)\""): f'{DST}option when is "contains(a)"; {WHEN}; contains takes 2 arguments, not 1',
    dst("when = 3"): f"{DST}option when is 3; {WHEN}",
    dst("final = [500]"): f"{DST}option final is a list; wanted a list of statuses from 400 to 499",
    dst('waits = ["5 parsecs"]'): f"{DST}option waits is a list; wanted a list of durations such as 5s, 5m, 2h",
    dst('signature = "md5"'): f'{DST}option signature is "md5"; wanted one of standard, provider, none',
    dst("allow_private = 1"): f"{DST}option allow_private is 1; wanted true or false",
    dst("allow = [1]"): f"{DST}option allow is a list; wanted a list of hosts, addresses or networks",
    dst("headers = 1"): f"{DST}option headers is 1; wanted a table of header names and texts",
    dst('headers = { "hunter2 pasted" = "x" }'): f"{DST}option headers is a table; "
    "wanted a table of header names and texts",
    dst('headers_env = { x = "pasted-hunter2" }'): f"{DST}option headers_env is a table; "
    "wanted a table of header names and names of variables",
    # files
    "a =": f"{HERE}Invalid value (at end of document); wanted TOML",
    'include = ["none.toml"]': f'{HERE}option include names "none.toml", and there is no such file',
}  # fmt: skip


@pytest.mark.parametrize(("toml", "sentence"), TABLE.items(), ids=TABLE.values())
def test_a_wrong_configuration_gets_its_sentence(toml: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(SettingsInvalid) as caught:
        load(tmp_path / "gapless.toml", ENVIRON)
    assert sentence in caught.value.problems
    expected = 2 if "missing; wanted the address" in sentence else 1
    assert len(caught.value.problems) == expected, caught.value.problems
    assert "pasted" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gapless.toml"
    file.write_text('[log]\nlevel = "loud"\n' + src('every = "x"\nslices = 0') + dst('via = ["fax"]'))
    with pytest.raises(SettingsInvalid) as caught:
        load(file, {**ENVIRON, "GAPLESS_PUBLIC__PORT": "x"})
    assert len(caught.value.problems) == 5
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"config none\.toml: the file cannot be read \(No such file"):
        load(tmp_path / "none.toml", {})
