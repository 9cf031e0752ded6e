"""Every key has a twin, and no secret comes out of any of them."""

import ast
import json
import tomllib
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from importlib import import_module
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gapless.condition import Condition
from gapless.destinations import registry
from gapless.domain import Silence
from gapless.settings import SecretRef, Settings, SettingsInvalid, load, resolve_options
from gapless.settings.environment import key_paths, variable_of
from gapless_reconcilers.kit.contract import Secret

BASE = {
    "KEY": "rk_live_1",
    "GAPLESS_SOURCE__STRIPE_LIVE__PROVIDER": "stripe",
    "GAPLESS_SOURCE__STRIPE_LIVE__OPTIONS__API_KEY_ENV": "KEY",
    "GAPLESS_DESTINATION__BILLING__DELAY": "1m",
    "GAPLESS_DESTINATION__BILLING__URL": "http://billing.example/",
    "GAPLESS_DESTINATION__BILLING__SIGNATURE": "none",
}
WHOLE = {"read_budget", "oidc"}
"""Tables whose keys are given together."""
SAMPLES = {
    ("public_url",): ("https://hooks.example", "https://hooks.example"),
    ("stop_within",): ("20s", timedelta(seconds=20)),
    ("include",): ("*.nothing", ("*.nothing",)),
    ("store", "url"): ("postgresql://u:p@h/d", Secret("postgresql://u:p@h/d")),
    ("store", "min_free"): ("1GB", 10**9),
    ("store", "connect_within"): ("2s", timedelta(seconds=2)),
    ("store", "command_within"): ("20s", timedelta(seconds=20)),
    ("store", "start_within"): ("0s", timedelta(0)),
    ("store", "connections"): ("5", 5),
    ("store", "audit_key"): ("a-token-of-enough-characters", Secret("a-token-of-enough-characters")),
    ("oidc", "issuer"): ("https://accounts.example", "https://accounts.example"),
    ("oidc", "client_id"): ("gapless", "gapless"),
    ("oidc", "client_secret"): ("s3cret", Secret("s3cret")),
    ("oidc", "url"): ("https://gapless.example", "https://gapless.example"),
    ("oidc", "operators"): ("admins, payments", ("admins", "payments")),
    ("oidc", "viewers"): ("support", ("support",)),
    ("oidc", "groups_claim"): ("roles", "roles"),
    ("oidc", "name_claim"): ("upn", "upn"),
    ("oidc", "scopes"): ("openid, groups", ("openid", "groups")),
    ("encryption", "keys"): (f"first:{'1f' * 32}", Secret(f"first:{'1f' * 32}")),
    ("encryption", "seals"): ("false", False),
    ("public", "answer_within"): ("9s", timedelta(seconds=9)),
    ("public", "host"): ("::1", "::1"),
    ("public", "port"): ("9000", 9000),
    ("public", "body_limit"): ("5", 5),
    ("public", "queue_max"): ("7", 7),
    ("public", "queue_max_bytes"): ("8kB", 8000),
    ("public", "certificate"): ("/etc/certificate.pem", Path("/etc/certificate.pem")),
    ("public", "certificate_key"): ("/etc/certificate_key.pem", Path("/etc/certificate_key.pem")),
    ("public", "client_ca"): ("/etc/client_ca.pem", Path("/etc/client_ca.pem")),
    ("private", "host"): ("localhost", "localhost"),
    ("private", "port"): ("9001", 9001),
    ("private", "token"): ("a-token-of-enough-characters", Secret("a-token-of-enough-characters")),
    ("private", "metrics_token"): ("a-token-of-enough-characters", Secret("a-token-of-enough-characters")),
    ("private", "consumer_token"): ("a-token-of-enough-characters", Secret("a-token-of-enough-characters")),
    ("private", "second_person_above"): ("1000", 1000),
    ("private", "stream_clients"): ("200", 200),
    ("private", "certificate"): ("/etc/certificate.pem", Path("/etc/certificate.pem")),
    ("private", "certificate_key"): ("/etc/certificate_key.pem", Path("/etc/certificate_key.pem")),
    ("private", "client_ca"): ("/etc/client_ca.pem", Path("/etc/client_ca.pem")),
    ("connections", "public"): ("50", 50),
    ("connections", "private"): ("20", 20),
    ("connections", "per_address"): ("9", 9),
    ("connections", "proxies"): ("10.0.0.0/8,::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    ("connections", "proxy_header"): ("CF-Connecting-IP", "CF-Connecting-IP"),
    ("connections", "head_limit"): ("8kB", 8000),
    ("connections", "head_within"): ("3s", timedelta(seconds=3)),
    ("connections", "body_starts_within"): ("4s", timedelta(seconds=4)),
    ("connections", "body_within"): ("1m", timedelta(minutes=1)),
    ("connections", "idle_within"): ("5s", timedelta(seconds=5)),
    ("retention", "payloads"): ("off", None),
    ("retention", "attempts"): ("1w", timedelta(weeks=1)),
    ("retention", "attempts_per_delivery"): ("30", 30),
    ("retention", "deliveries"): ("3d", timedelta(days=3)),
    ("retention", "passes"): ("14d", timedelta(days=14)),
    ("retention", "clean_passes"): ("2d", timedelta(days=2)),
    ("retention", "audit_log"): ("400d", timedelta(days=400)),
    ("quarantine", "max_rows"): ("0", 0),
    ("quarantine", "max_bytes"): ("0", 0),
    ("quarantine", "per_minute"): ("1", 1),
    ("quarantine", "max_age"): ("2d", timedelta(days=2)),
    ("log", "level"): ("debug", "debug"),
    ("log", "format"): ("json", "json"),
    ("source", "provider"): ("stripe", "stripe"),
    ("source", "mode"): ("poll", "poll"),
    ("source", "start"): ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ("source", "types"): ("a.*, b", ("a.*", "b")),
    ("source", "pace"): ("interval", "interval"),
    ("source", "every"): ("7s", timedelta(seconds=7)),
    ("source", "every_max"): ("2h", timedelta(hours=2)),
    ("source", "request_within"): ("90s", timedelta(seconds=90)),
    ("source", "body_limit"): ("2MB", 2_000_000),
    ("source", "allow_from"): ("203.0.113.0/24", (ip_network("203.0.113.0/24"),)),
    ("source", "lookback"): ("0s", timedelta(0)),
    ("source", "sweep"): ("off", None),
    ("source", "grace"): ("9s", timedelta(seconds=9)),
    ("source", "slices"): ("8", 8),
    ("source", "requests_per_second"): ("2.5", 2.5),
    ("source", "read_budget", "requests"): ("10", 10),
    ("source", "read_budget", "period"): ("1d", timedelta(days=1)),
    ("source", "keep_unsubscribed"): ("true", True),
    ("source", "absences_allowed"): ("3", 3),
    ("source", "silence_after"): ("learn", Silence(after=None)),
    ("source", "repair"): ("true", True),
    ("source", "share_account"): ("true", True),
    ("destination", "type"): ("http", "http"),
    ("destination", "url"): ("http://else.example/", "http://else.example/"),
    ("source", "mask"): ("/data/card,/items/*/email", ("/data/card", "/items/*/email")),
    ("destination", "target"): ("m:f", "m:f"),
    ("destination", "folder"): ("/srv/acme", "/srv/acme"),
    ("destination", "sources"): ('["stripe-live"]', ("stripe-live",)),
    ("destination", "types"): ("invoice.*", ("invoice.*",)),
    ("destination", "via"): ("list,import", ("list", "import")),
    ("destination", "since"): ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ("destination", "delay"): ("1h", timedelta(hours=1)),
    ("destination", "receipts"): ("true", True),
    ("destination", "require_listed"): ("true", True),
    ("destination", "confirm"): ("receipt", "receipt"),
    ("destination", "receipt_within"): ("1h", timedelta(hours=1)),
    ("destination", "receipt_attempts"): ("3", 3),
    ("destination", "order"): ("object", "object"),
    ("destination", "order_skips_dead"): ("false", False),
    ("destination", "release"): ("proven", "proven"),
    ("destination", "signature"): ("none", "none"),
    ("destination", "secret"): ("whsec_x", Secret("whsec_x")),
    ("destination", "concurrency"): ("2", 2),
    ("destination", "rate"): ("3", 3.0),
    ("destination", "timeout"): ("5s", timedelta(seconds=5)),
    ("destination", "max_attempts"): ("2", 2),
    ("destination", "waits"): ("5s,5m", (timedelta(seconds=5), timedelta(minutes=5))),
    ("destination", "max_age"): ("1d", timedelta(days=1)),
    ("destination", "final"): ("[410, 422]", (410, 422)),
    ("destination", "paused"): ("true", True),
    ("destination", "hydrate"): ("true", True),
    ("destination", "previous_secret"): ("whsec_y", Secret("whsec_y")),
    ("destination", "headers_file"): ("{}", {}),
    ("destination", "keep_answer_headers"): ("x-trace, x-node", ("x-trace", "x-node")),
    ("destination", "keep_answer_body"): ("false", False),
    ("destination", "when"): ("id == 'x'", Condition("id == 'x'")),
    ("destination", "format"): ("cloudevents-binary", "cloudevents-binary"),
    ("destination", "cloudevents_source"): ("https://gapless.acme.example", "https://gapless.acme.example"),
    ("destination", "backoff_first"): ("1s", timedelta(seconds=1)),
    ("destination", "backoff_max"): ("10s", timedelta(seconds=10)),
    ("destination", "allow_private"): ("true", True),
    ("destination", "allow"): ("127.0.0.1,::1", ("127.0.0.1", "::1")),
    ("destination", "modes"): ("live, test", ("live", "test")),
    ("destination", "on_version_mismatch"): ("deliver", "deliver"),
    ("destination", "headers"): ('{"X-Team": "b"}', {"X-Team": "b"}),
    ("destination", "headers_env"): (
        '{"X-Key": "KEY"}',
        {"X-Key": SecretRef(value=Secret("rk_live_1"), variable="KEY")},
    ),
    ("destination", "user"): ("gapless", "gapless"),
    ("destination", "password"): ("pass word", Secret("pass word")),
    ("destination", "ca"): ("/etc/ca.pem", "/etc/ca.pem"),
    ("destination", "certificate"): ("/etc/ours.pem", "/etc/ours.pem"),
    ("destination", "certificate_key"): ("/etc/ours.key", "/etc/ours.key"),
    ("destination", "servers"): ("nats://a:4222,tls://b:4222", ("nats://a:4222", "tls://b:4222")),
    ("destination", "subject"): ("billing.{type}", "billing.{type}"),
    ("destination", "token"): ("t0ken", Secret("t0ken")),
    ("destination", "exchange"): ("events", "events"),
    ("destination", "routing_key"): ("{source}", "{source}"),
    ("destination", "topic"): ("events", "events"),
    ("destination", "tls"): ("true", True),
    ("destination", "sasl"): ("SCRAM-SHA-256", "SCRAM-SHA-256"),
    ("destination", "producer"): ('{"linger.ms": "1"}', {"linger.ms": "1"}),
    ("destination", "queue_url"): ("https://sqs.eu-west-1.amazonaws.com/1/a", "https://sqs.eu-west-1.amazonaws.com/1/a"),
    ("destination", "region"): ("eu-west-1", "eu-west-1"),
    ("destination", "access_key_id"): ("AKIA1", "AKIA1"),
    ("destination", "secret_access_key"): ("secret", Secret("secret")),
    ("destination", "group"): ("billing", "billing"),
    ("destination", "table"): ("billing.events", "billing.events"),
}  # fmt: skip
NAMES = {"source": ["stripe-live"], "destination": ["billing"]}
OWN = {("destination", name) for kind in registry.kinds() for name in registry.load(kind).Options.__struct_fields__}
"""The keys that one type of destination has: a destination of another type lacks them."""

LEAST = {
    "http": {},
    "kafka": {"SERVERS": "a:9092", "TOPIC": "t"},
    "nats": {"SERVERS": "nats://a:4222", "SUBJECT": "s"},
    "postgres": {"URL": "postgresql://a/b"},
    "python": {"TARGET": "m:f"},
    "rabbitmq": {"URL": "amqp://a/", "ROUTING_KEY": "q"},
    "sqs": {"QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/1/q.fifo"},
}
"""What a destination of each type cannot do without, as suffixes of variables."""
TOGETHER = (("user", "password"), ("access_key_id", "secret_access_key"), ("certificate", "certificate_key"))
"""Keys of which neither is allowed alone."""


def type_of(path: tuple[str, ...]) -> str:
    """The first type of destination that has the key, as in the samples; of those with `servers`: nats."""
    having = [kind for kind in registry.kinds() if path[-1] in registry.load(kind).Options.__struct_fields__]
    return "nats" if "nats" in having else (having or ["http"])[0]


def tree_paths(cls: type[Any] = Settings, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every attribute of the tree, read from its types alone, not from what `settings` says of itself."""
    found: set[tuple[str, ...]] = set()
    for name, hint in get_type_hints(cls).items():
        inner = next((t for t in (hint, *get_args(hint)) if is_dataclass(t) and isinstance(t, type)), None)
        if inner is None or inner.__module__ != cls.__module__:  # a value, not a table
            found.add((*prefix, name))
        elif get_origin(hint) in (None, UnionType):
            found |= tree_paths(inner, (*prefix, name))
        else:
            found |= tree_paths(inner, (*prefix, name.removesuffix("s")))
    return found


def full_path(path: tuple[str, ...]) -> tuple[str, ...]:
    return (path[0], NAMES[path[0]][0], *path[1:]) if path[0] in NAMES else path


def value_at(settings: Settings, path: tuple[str, ...]) -> object:
    found: Any = settings
    for part in path:
        if part in NAMES:
            found = getattr(found, f"{part}s")[0]
        else:
            found = getattr(found, part) if hasattr(found, part) else getattr(found.options, part)
    found = found.read() if isinstance(found, SecretRef) else found
    if isinstance(found, tuple):
        return tuple(one.value if isinstance(one, Enum) else one for one in found)
    return found.value if isinstance(found, Enum) else found


def environ_for(path: tuple[str, ...]) -> dict[str, str]:
    environ = {**BASE, variable_of(full_path(path)): SAMPLES[path][0]}
    for whole in WHOLE & {*path}:
        environ = {**BASE, **{variable_of(full_path(p)): text for p, (text, _) in SAMPLES.items() if whole in p}}
    if path in OWN and (kind := type_of(path)) != "http":
        prefix, own = "GAPLESS_DESTINATION__BILLING__", environ.pop(variable_of(full_path(path)))
        del environ[f"{prefix}URL"], environ[f"{prefix}SIGNATURE"]
        together = next((pair for pair in TOGETHER if path[-1] in pair), ())
        environ |= {f"{prefix}{key}": text for key, text in LEAST[kind].items()} | {f"{prefix}TYPE": kind}
        environ |= {f"{prefix}{key.upper()}": SAMPLES["destination", key][0] for key in together}
        environ[variable_of(full_path(path))] = own
    return environ


def test_every_attribute_of_the_tree_has_a_sample_twin() -> None:
    named_otherwise = {(kind, attribute) for kind in NAMES for attribute in ("name", "options")}
    assert tree_paths() - named_otherwise | OWN == set(SAMPLES)


@pytest.mark.parametrize("path", SAMPLES, ids=".".join)
def test_every_key_is_set_by_its_twin(path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert value_at(load(None, environ_for(path)), path) == SAMPLES[path][1]


@pytest.mark.parametrize("path", SAMPLES, ids=".".join)
def test_every_twin_but_its_own_leaves_a_key_alone(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_twin, without = load(None, environ_for(path)), load(None, BASE)
    changed = {p for p in SAMPLES if _or_none(with_twin, p) != _or_none(without, p)}
    assert changed <= {path, *(p for p in SAMPLES if WHOLE & {*p} & {*path})} | (
        {("destination", "type"), *OWN} if path in OWN and type_of(path) != "http" else set()
    )


def _or_none(settings: Settings, path: tuple[str, ...]) -> object:
    try:
        return value_at(settings, path)
    except AttributeError:
        return None


def test_a_twin_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gapless.toml"
    file.write_text('[store]\nurl_file = "nowhere"\n[public]\nport = 1\n')
    settings = load(file, {"GAPLESS_PUBLIC__PORT": "2", "GAPLESS_STORE__URL": "sqlite:///x.db"})
    assert settings.public.port == 2
    assert settings.store.url.read() == Secret("sqlite:///x.db")


def test_a_source_may_live_in_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = load(None, BASE).sources
    assert (source.name, source.provider) == ("stripe-live", "stripe")


def test_options_are_read_as_json_and_secrets_by_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prefix = "GAPLESS_SOURCE__STRIPE_LIVE__OPTIONS__"
    environ = {
        **BASE,
        prefix + "API_KEY": "rk_test_direct",
        prefix + "LIVEMODE": "false",
        prefix + "API_VERSION": "2024",
        prefix + "PAGE_LIMIT": "50",
    }
    del environ[prefix + "API_KEY_ENV"]
    (source,) = load(None, environ).sources
    assert source.options["api_key_env"] == prefix + "API_KEY"
    expected = {"api_key": Secret("rk_test_direct"), "livemode": False, "api_version": "2024", "page_limit": 50}
    assert resolve_options(source, environ) == expected


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("GAPLESS_STORE__ULR", "did you mean GAPLESS_STORE__URL?"),
        ("GAPLESS_SOURCE__STRIPE_LIVE__EVRY", "did you mean GAPLESS_SOURCE__STRIPE_LIVE__EVERY?"),
        ("GAPLESS_QQQQ", "docs/configuration.md has them all"),
        ("GAPLESS_DESTINATION__BILLING__ULR", "did you mean GAPLESS_DESTINATION__BILLING__URL?"),
    ],
)
def test_an_unknown_variable_is_refused_with_a_suggestion(variable: str, hint: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(None, {**BASE, variable: "hunter2"})
    (sentence,) = caught.value.problems
    assert sentence == f"environment: there is no setting {variable}; {hint}"


def test_a_variable_for_another_type_of_destination_is_refused() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(None, {**BASE, "GAPLESS_DESTINATION__BILLING__TARGET": "m:f"})
    assert caught.value.problems == (
        'environment: GAPLESS_DESTINATION__BILLING__TARGET is for type "python"; leave it out, or change type',
    )


def test_variables_of_tests_and_other_programs_are_ignored() -> None:
    load(None, {**BASE, "GAPLESS_TEST_POSTGRES_URL": "x", "GAPLESS_REQUIRE": "postgres", "GAPLESSNESS": "1"})


def test_a_variable_that_a_key_names_may_begin_with_our_prefix() -> None:
    load(
        None,
        {**BASE, "GAPLESS_PRIVATE__TOKEN_ENV": "GAPLESS_MY_TOKEN", "GAPLESS_MY_TOKEN": "a-token-of-enough-characters"},
    )


def test_the_paths_that_twins_are_made_from_are_all_different() -> None:
    variables = [variable_of(path) for path in key_paths({**NAMES, "source": ["stripe-live", "stripe", "live"]})]
    assert len(variables) == len(set(variables))


PASTED = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60).map("hunter2".__add__)
SECRET_KEYS = [
    *((section, key) for section, key in [("private", "token"), ("private", "metrics_token"), ("store", "url")]),
    ("destination", "secret"),
    ("source.options", "api_key"),
    ("source.options", "webhook_secret"),
]


@given(secret=PASTED, where=st.sampled_from(SECRET_KEYS), suffix=st.sampled_from(["", "_env", "_file"]))
def test_a_secret_pasted_at_a_secrets_key_is_in_no_message(
    tmp_path_factory: pytest.TempPathFactory, secret: str, where: tuple[str, str], suffix: str
) -> None:
    section, key = where
    line = f"{key}{suffix} = {json.dumps(secret)}\n"
    tables = {
        "source.options": '[[source]]\nname = "s"\nprovider = "stripe"\n[source.options]\n',
        "destination": '[[destination]]\nname = "d"\n',
    }
    file = tmp_path_factory.mktemp("settings") / "gapless.toml"
    file.write_text(tables.get(section, f"[{section}]\n") + line)
    assume(not (section == "store" and suffix == "" and secret.startswith("sqlite")))
    with pytest.raises(SettingsInvalid) as caught:
        load(file, {})
    assert secret not in str(caught.value) + repr(caught.value)


@given(secret=PASTED)
def test_a_secret_in_the_environment_is_in_no_message(secret: str) -> None:
    environ = {
        **BASE,
        "KEY": secret,
        "GAPLESS_STORE__URL": f"postgresql://u:{secret}@h/db",
        "GAPLESS_PRIVATE__TOKEN": f"{secret}abcdefghijklmnopqrstuvwxyz",
        "GAPLESS_DESTINATION__BILLING__SECRET": secret,
        "GAPLESS_DESTINATION__BILLING__URL": f"http://h.example/?{secret.replace('#', '')}",
        "GAPLESS_DESTINATION__BILLING__HEADERS": json.dumps({"x": secret}),
        "GAPLESS_DESTINATION__BILLING__HEADERS_ENV": '{"y": "KEY"}',
        "GAPLESS_SOURCE__STRIPE_LIVE__OPTIONS__API_BASE": f"http://{secret}@h",
    }
    settings = load(None, environ)
    shown = f"{settings!r}{settings}{settings.sources}{settings.destinations}"
    assert secret not in shown
    assert "hunter2" not in shown
    with pytest.raises(SettingsInvalid) as caught:
        load(None, {**environ, "GAPLESS_PUBLIC__PORT": "x", "GAPLESS_STORE__URL": secret})
    assert secret not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    "module",
    [
        "settings.tree",
        "destinations.http.options",
        *(f"destinations.{name}" for name in ("brokers", *registry.kinds())),
    ],
)
def test_every_attribute_is_documented(module: str) -> None:
    file = import_module(f"gapless.{module}").__file__
    assert file
    parsed = ast.parse(Path(file).read_text(encoding="utf-8"))
    bare = [
        f"{cls.name}.{ast.unparse(attribute.target)}"
        for cls in parsed.body
        if isinstance(cls, ast.ClassDef) and cls.name.endswith(("Settings", "Options"))
        for attribute, after in pairwise([*cls.body, ast.Pass()])
        if isinstance(attribute, ast.AnnAssign)
        and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
        and "Settings" not in ast.unparse(attribute.annotation)  # a table, documented by its class
    ]
    assert bare == []


def test_the_example_file_has_every_key() -> None:
    text = (Path(__file__).parents[2] / "config" / "gapless.example.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    for path in SAMPLES:
        table: Any = tables
        for part in path[:-1]:
            table = table[part]
            if isinstance(table, list):
                table = {key: value for one in table for key, value in one.items()}
        assert {path[-1], f"{path[-1]}_env"} & table.keys(), path
