import copy
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import Any, cast

import pytest
from declared import READY_MADE

from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.deliver.routing import Destination
from gapless.destinations.contract import SenderContext
from gapless.destinations.http import HttpOptions
from gapless.domain import Mode, Via
from gapless.ledger.writer import Writer
from gapless.receive.endpoint import ReceiveOptions
from gapless.receive.quarantine import QuarantineOptions
from gapless.reconcile.policy import SourcePolicy
from gapless.settings import (
    LogFormat,
    PaceStrategy,
    SecretRef,
    SecretUnavailable,
    Settings,
    SettingsInvalid,
    SourceSettings,
    build_provider,
    load,
    option_files,
    resolve_options,
    tree,
)
from gapless.settings.secret_files import secret_paths
from gapless_reconcilers.kit.contract import Secret

EXAMPLE = Path(__file__).parents[2] / "config" / "gapless.example.toml"
SECRETS = {
    "STRIPE_API_KEY": "rk_live_abc",
    "STRIPE_WEBHOOK_SECRET": "whsec_abc",
    "BILLING_SECRET": "whsec_billing",
    "BILLING_AUTHORIZATION": "Bearer billing",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "KAFKA_PASSWORD": "password",
    "AWS_SECRET": "secret",
    "BILLING_DATABASE_URL": "postgresql://gapless:hunter2@db/billing",
    "BILLING_SECRET_OLD": "whsec_old",
    "DATABASE_URL": "postgresql://gapless:hunter2@db/gapless",
    "PRIVATE_TOKEN": "a-token-of-enough-characters",
    "AUDIT_KEY": "a-key-of-enough-characters",
    "OIDC_CLIENT_SECRET": "s3cret",
    "ENCRYPTION_KEYS": f"first:{'1f' * 32}",
    "METRICS_TOKEN": "a-token-of-enough-characters",
    "CONSUMER_TOKEN": "a-token-of-enough-characters",
}
SOURCE = """
[[source]]
name = "stripe-live"
provider = "stripe"
[source.options]
api_key_env = "STRIPE_API_KEY"
"""
DESTINATION = """
[[destination]]
name = "billing"
url = "https://billing.acme.example/"
secret_env = "BILLING_SECRET"
"""


def written(folder: Path, toml: str) -> Path:
    file = folder / "gapless.toml"
    file.write_text(toml, encoding="utf-8")
    return file


def loaded(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> Settings:
    return load(written(folder, toml), SECRETS if environ is None else {**SECRETS, **environ})


def problems(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as caught:
        loaded(folder, toml, environ)
    return caught.value.problems


def source(folder: Path, options: str, environ: Mapping[str, str] | None = None) -> SourceSettings:
    toml = f'[[source]]\nname = "acme"\nprovider = "stripe"\n[source.options]\n{options}'
    return loaded(folder, toml, environ).sources[0]


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == Settings()


@pytest.mark.parametrize(
    "cls", [DeliveryRetryPolicy, Destination, QuarantineOptions, ReceiveOptions, SenderContext, SourcePolicy, Writer]
)
def test_a_class_repeats_no_default_of_a_setting(cls: type) -> None:
    tables = [Settings, *tree.sections_of(Settings).values(), *tree.NAMED.values()]
    keys = {field.name for table in tables for field in fields(table)}
    taken = [each for each in signature(cls).parameters.values() if each.name in keys]
    assert taken
    assert [each.name for each in taken if each.default is not each.empty] == []


def test_no_file_and_no_variable_give_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Settings()


def test_the_file_in_the_working_directory_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "[public]\nport = 9000\n")
    monkeypatch.chdir(tmp_path)
    assert load(None, {}).public.port == 9000


def test_gapless_config_names_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[public]\nport = 9000\n")
    assert load(None, {"GAPLESS_CONFIG": str(file)}).public.port == 9000


def test_the_example_file_loads_as_it_stands() -> None:
    settings = load(EXAMPLE, SECRETS)
    assert [one.name for one in settings.sources] == ["stripe-live"]
    assert [one.type for one in settings.destinations] == [
        *("http", "python", "nats", "nats", "rabbitmq", "kafka", "sqs", "postgres")
    ]
    assert settings.store.url.read() == Secret(SECRETS["DATABASE_URL"])


def test_durations_sizes_times_and_words_become_typed_values(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        '[public]\nbody_limit = "2MiB"\nqueue_max_bytes = 7\n[retention]\npayloads = "off"\nattempts = "1d12h"\n'
        '[log]\nformat = "json"\n'
        + SOURCE.replace(
            'provider = "stripe"',
            'provider = "stripe"\nmode = "poll"\nstart = 2026-01-31\n'
            'pace = "interval"\nevery = "500ms10s"\nsweep = "off"',
        )
        + DESTINATION
        + 'since = 2026-01-31T09:00:00+01:00\nvia = ["list"]\n',
    )
    assert settings.public.body_limit == 2 * 1024 * 1024
    assert settings.public.queue_max_bytes == 7
    assert settings.retention.payloads is None
    assert settings.retention.attempts == timedelta(hours=36)
    assert settings.log.format is LogFormat.JSON
    assert settings.sources[0].mode is Mode.POLL
    assert settings.sources[0].start == datetime(2026, 1, 31, tzinfo=UTC)
    assert settings.sources[0].pace is PaceStrategy.INTERVAL
    assert settings.sources[0].every == timedelta(seconds=10.5)
    assert settings.sources[0].sweep is None
    assert settings.destinations[0].since == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert settings.destinations[0].via == (Via.LIST,)


def test_a_destination_is_not_owed_imports_unless_it_names_them(tmp_path: Path) -> None:
    assert Via.IMPORT not in loaded(tmp_path, DESTINATION).destinations[0].via


def test_included_files_add_sources_and_resolve_their_own_paths(tmp_path: Path) -> None:
    folder = tmp_path / "sources.d"
    folder.mkdir()
    (folder / "key").write_text("rk_live_file\n")
    (folder / "acme.toml").write_text(SOURCE.replace('api_key_env = "STRIPE_API_KEY"', 'api_key_file = "key"'))
    settings = loaded(tmp_path, 'include = ["sources.d/*.toml"]\n' + DESTINATION, {})
    assert option_files(settings.sources[0]) == {folder / "key"}
    assert resolve_options(settings.sources[0], {})["api_key"] == Secret("rk_live_file")


def test_an_included_file_has_only_sources_and_destinations(tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text("[store]\n")
    assert problems(tmp_path, 'include = ["more.toml"]') == (
        "config more.toml: there is store; an included file holds [[source]] and [[destination]] only",
    )


PADDLE = {"PADDLE_API_KEY": "pdl", "PADDLE_WEBHOOK_SECRET": "x"}


def test_a_ready_made_declaration_is_included_by_its_name(tmp_path: Path) -> None:
    (paddle,) = loaded(tmp_path, 'include = ["declared:paddle"]', PADDLE).sources
    assert (paddle.name, paddle.provider) == ("paddle", "rest_list")


def test_a_ready_made_declaration_is_named_like_a_provider(tmp_path: Path) -> None:
    text = '[[source]]\nname = "billing-eu"\nprovider = "paddle"\nevery = "5m"\n[source.options]\nrate = 1\n'
    (source,) = loaded(tmp_path, text, PADDLE).sources
    (declared,) = loaded(tmp_path, 'include = ["declared:paddle"]', PADDLE).sources
    assert (source.name, source.provider, source.every) == ("billing-eu", "rest_list", timedelta(minutes=5))
    assert {**source.options} == {**declared.options, "rate": 1}


def test_two_accounts_of_a_declared_vendor_have_secrets_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("pdl_us")
    text = """
[[source]]
name = "eu"
provider = "paddle"
[[source]]
name = "us"
provider = "paddle"
[source.options]
auth = { token_file = "key" }
webhook = { signature = { secret_env = "PADDLE_US_SECRET" } }
"""
    settings = loaded(tmp_path, text, PADDLE | {"PADDLE_US_SECRET": "y"})
    environ = PADDLE | {"PADDLE_US_SECRET": "y"}
    eu, us = (resolve_options(each, environ) for each in settings.sources)
    assert (eu["auth"], us["auth"]) == (
        {"type": "bearer", "token": Secret("pdl")},
        {"type": "bearer", "token": Secret("pdl_us")},
    )
    signatures = [cast("dict[str, Any]", each["webhook"])["signature"] for each in (eu, us)]
    assert [each["header"] for each in signatures] == ["Paddle-Signature"] * 2
    assert signatures[1]["secret"] != signatures[0]["secret"]


def test_the_environment_alone_names_a_declared_vendor(tmp_path: Path) -> None:
    (source,) = loaded(tmp_path, "", PADDLE | {"GAPLESS_SOURCE__PAD__PROVIDER": "paddle"}).sources
    assert (source.name, source.provider) == ("pad", "rest_list")


@pytest.mark.parametrize("text", ["declared:paddle, more.toml", '["declared:paddle", "more.toml"]'])
def test_the_environment_may_include_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "more.toml").write_text(SOURCE)
    settings = loaded(tmp_path, "", PADDLE | {"GAPLESS_INCLUDE": text})
    assert [one.name for one in settings.sources] == ["paddle", "stripe-live"]


@pytest.mark.parametrize("name", ["padle", "", "*", "../kit/paddle", "paddle.toml"])
def test_an_unknown_declaration_names_those_that_there_are(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, f'include = ["declared:{name}"]')
    assert problem == (
        f'config gapless.toml: option include: there is no ready-made declaration "{name}"; wanted one of '
        + ", ".join(path.stem for path in READY_MADE)
    )


def test_a_problem_of_a_declaration_names_it(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 'include = ["declared:paddle"]', {"PADDLE_WEBHOOK_SECRET": "x"})
    assert problem.startswith('config declared:paddle: source "paddle": option options.auth.token_env: ')


def test_a_changed_secret_file_gives_a_changed_provider(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("rk_live_old")
    acme = source(tmp_path, 'api_key_file = "key"')
    before = build_provider(acme, {})
    key.write_text("rk_live_new")
    after = build_provider(acme, {})
    assert before.auth() != after.auth()
    assert resolve_options(acme, {})["api_key"] == Secret("rk_live_new")


def test_a_changed_secret_file_gives_a_changed_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one\n")
    settings = loaded(tmp_path, DESTINATION.replace('secret_env = "BILLING_SECRET"', 'secret_file = "secret"'))
    options = settings.destinations[0].options
    assert isinstance(options, HttpOptions)
    reference = options.secret
    assert isinstance(reference, SecretRef)
    assert reference.path == file
    assert reference.read() == Secret("one")
    file.write_text("two\n")
    assert reference.read() == Secret("two")
    file.unlink()
    with pytest.raises(SecretUnavailable, match="cannot be read"):
        reference.read()


def test_headers_are_read_from_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer one\n")
    settings = loaded(tmp_path, DESTINATION + 'headers_file = { authorization = "token" }\n')
    options = settings.destinations[0].options
    assert isinstance(options, HttpOptions)
    assert options.headers_file["authorization"].read() == Secret("Bearer one")
    assert ("destination billing", tmp_path / "token") in list(secret_paths(settings))
    (sentence,) = problems(tmp_path, DESTINATION + 'headers_file = { authorization = "none" }\n')
    assert "option headers_file.authorization: the file cannot be read" in sentence


def test_several_webhook_secrets_come_from_lists_lines_and_files(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("whsec_3\nwhsec_4\n")
    acme = source(
        tmp_path,
        'api_key_env = "STRIPE_API_KEY"\nwebhook_secret_env = ["FIRST", "SECOND"]\nwebhook_secret_file = "more"',
        {"FIRST": "whsec_1", "SECOND": "whsec_2\n"},
    )
    resolved = resolve_options(acme, {**SECRETS, "FIRST": "whsec_1", "SECOND": "whsec_2\n"})
    assert resolved["webhook_secret"] == [Secret(f"whsec_{n}") for n in (1, 2, 3, 4)]


def test_the_options_keep_the_names_of_secrets_not_the_secrets(tmp_path: Path) -> None:
    acme = source(tmp_path, 'api_key_env = "STRIPE_API_KEY"\nlivemode = true')
    assert dict(acme.options) == {"api_key_env": "STRIPE_API_KEY", "livemode": True}


def test_neither_the_environment_nor_the_options_are_changed(tmp_path: Path) -> None:
    environ = {**SECRETS, "GAPLESS_SOURCE__STRIPE_LIVE__OPTIONS__LIVEMODE": "true", "GAPLESS_PUBLIC__PORT": "9"}
    before = copy.deepcopy(environ)
    settings = load(written(tmp_path, SOURCE), environ)
    options = copy.deepcopy(dict(settings.sources[0].options))
    resolve_options(settings.sources[0], environ)
    assert environ == before
    assert dict(settings.sources[0].options) == options


def test_the_tree_cannot_be_changed(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE)
    with pytest.raises(AttributeError):
        settings.public.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.sources[0].options["livemode"] = False  # type: ignore[index]


def test_the_example_file_has_the_defaults() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    unmarked = {
        (section, key): value
        for section in ("public", "retention", "quarantine", "log", "store")
        for key, value in table[section].items()
        if not key.endswith("_env")
    }
    defaults = Settings()
    settings = load(EXAMPLE, SECRETS)
    for section, key in unmarked:
        default = getattr(getattr(defaults, section), key)
        assert default is None or getattr(getattr(settings, section), key) == default, (section, key)
