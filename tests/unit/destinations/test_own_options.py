"""The keys of one kind of destination are read by its options, with the same error messages as other keys."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from distributions import add_distribution
from msgspec import Meta

from gapless.destinations import registry
from gapless.destinations.contract import DestinationOptions, SecretReader
from gapless.destinations.http import HttpOptions
from gapless.settings import DestinationSettings, SettingsInvalid, load
from gapless_reconcilers.kit.contract import Secret

ENVIRON = {"QUEUE_TOKEN": "t0ken", "OTHER": "another"}


class Sorting(StrEnum):
    ANY = "any"
    STRICT = "strict"


class QueueOptions(DestinationOptions, frozen=True, kw_only=True):
    queue: Annotated[str, Meta(pattern=r"\A[a-z]+\Z", description="the name of a queue")]
    token: SecretReader
    sorting: Sorting = Sorting.ANY
    keep: timedelta | None = None
    depth: Annotated[int, Meta(ge=1, le=9, description="a whole number of messages from 1 to 9")] | None = None
    share: float = 1.0
    durable: bool = False
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    labels_env: Mapping[str, SecretReader] = {}


class QueueSender:
    kind = "queue"
    Options = QueueOptions


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = f"acme_{tmp_path.name.replace('-', '_')}"
    found = f"import sys\nQueueSender = sys.modules[{__name__!r}].QueueSender\n"
    add_distribution(tmp_path, module, found, group=registry.ENTRY_POINT_GROUP, entry="queue", target="QueueSender")


def destination(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> DestinationSettings:
    file = folder / "gapless.toml"
    file.write_text(f'[[destination]]\nname = "d"\ntype = "queue"\n{toml}')
    return load(file, {**ENVIRON, **(environ or {})}).destinations[0]


def queue(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> QueueOptions:
    options = destination(folder, toml, environ).options
    assert isinstance(options, QueueOptions)
    return options


def problem(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        queue(folder, toml, environ)
    (sentence,) = caught.value.problems
    return sentence


PASTED = (
    "option token is a secret and may not stand here; name the variable that holds it, "
    'token_env = "…", or the file, token_file = "…"'
)
REQUIRED = 'queue = "orders"\ntoken_env = "QUEUE_TOKEN"\n'


def test_each_type_of_option_is_read(tmp_path: Path) -> None:
    options = queue(
        tmp_path,
        REQUIRED + 'sorting = "strict"\nkeep = "1h30m"\ndepth = 3\nshare = 2\ndurable = true\ntags = ["a", "b"]\n'
        'labels = { a = "1" }\nlabels_env = { b = "OTHER" }\nconcurrency = 3\n',
    )
    assert (options.queue, options.token.read(), options.sorting) == ("orders", Secret("t0ken"), Sorting.STRICT)
    assert (options.keep, options.depth, options.share) == (timedelta(minutes=90), 3, 2.0)
    assert (options.durable, options.tags, options.labels) == (True, ("a", "b"), {"a": "1"})
    assert options.labels_env["b"].read() == Secret("another")


def test_each_type_of_option_has_a_twin(tmp_path: Path) -> None:
    prefix = "GAPLESS_DESTINATION__D__"
    twins = {
        "QUEUE": "orders", "TOKEN": "direct", "SORTING": "strict", "KEEP": "5m", "DEPTH": "2", "SHARE": "0.5",
        "DURABLE": "true", "TAGS": "a, b", "LABELS": '{"a": "1"}', "LABELS_ENV": '{"b": "OTHER"}',
    }  # fmt: skip
    options = queue(tmp_path, "", {f"{prefix}{name}": text for name, text in twins.items()})
    assert (options.queue, options.token.read(), options.sorting) == ("orders", Secret("direct"), Sorting.STRICT)
    assert (options.keep, options.depth, options.share) == (timedelta(minutes=5), 2, 0.5)
    assert (options.durable, options.tags, options.labels) == (True, ("a", "b"), {"a": "1"})
    assert options.labels_env["b"].read() == Secret("another")


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ('token_env = "QUEUE_TOKEN"', "option queue is missing; wanted the name of a queue"),
        ('queue = "orders"', "option token is missing; wanted token_env, or token_file"),
        (REQUIRED.replace("orders", "Orders"), 'option queue is "Orders"; wanted the name of a queue'),
        (REQUIRED + "depth = 10", "option depth is 10; wanted a whole number of messages from 1 to 9"),
        (REQUIRED + "share = true", "option share is true; wanted a number"),
        (REQUIRED + 'sorting = "some"', 'option sorting is "some"; wanted one of any, strict'),
        (REQUIRED + "keep = 5", "option keep is 5; wanted a duration such as 30s, 5m, 2h, 30d"),
        (REQUIRED + "tags = [1]", "option tags is a list; wanted a list"),
        (REQUIRED + "labels = { a = 1 }", "option labels is a table; wanted a table"),
        (REQUIRED + 'url = "http://h.example/"', 'option url is for type "http"; leave it out, or change type'),
        (REQUIRED + "quue = 1", "there is no option quue; did you mean queue?"),
        ('queue = "orders"\ntoken = "pasted"', PASTED),
    ],
)  # fmt: skip
def test_a_wrong_option_gets_its_sentence(toml: str, sentence: str, tmp_path: Path) -> None:
    assert problem(tmp_path, toml) == f'config gapless.toml: destination "d": {sentence}'


def test_an_option_that_every_destination_has_is_a_fault_of_the_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clashing(QueueOptions, frozen=True, kw_only=True):
        types: str = ""

    monkeypatch.setattr(QueueSender, "Options", Clashing)
    assert problem(tmp_path, REQUIRED) == (
        'config gapless.toml: destination "d": type "queue" has an option types of its own, as every destination has; '
        "rename it"
    )


def test_what_the_options_themselves_refuse_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky(QueueOptions, frozen=True, kw_only=True):
        def __post_init__(self) -> None:
            raise ValueError("options sorting and durable do not fit; choose one")

    monkeypatch.setattr(QueueSender, "Options", Picky)
    assert problem(tmp_path, REQUIRED).endswith('"d": options sorting and durable do not fit; choose one')


def test_options_show_no_value(tmp_path: Path) -> None:
    made = destination(tmp_path, REQUIRED)
    assert "orders" not in f"{made!r}{made.options!r}"


def test_a_network_may_be_allowed(tmp_path: Path) -> None:
    file = tmp_path / "http.toml"
    file.write_text(
        '[[destination]]\nname = "d"\nurl = "http://h.example/"\nsignature = "none"\nallow = ["10.0.0.0/8", "::1"]\n'
    )
    options: Any = load(file, {}).destinations[0].options
    assert isinstance(options, HttpOptions)
    assert options.allow == ("10.0.0.0/8", "::1")
