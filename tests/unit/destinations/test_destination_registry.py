"""Kinds of destinations are found strictly, those of outside packages by their entry points."""

from collections.abc import Callable
from pathlib import Path

import pytest
from distributions import add_distribution

from gapless.destinations import registry
from gapless.destinations.contract import DestinationInvalid, DestinationOptions

GOOD = """
from gapless.destinations.contract import Delivered, DestinationOptions

class QueueSender:
    kind = "{kind}"
    Options = DestinationOptions

    def __init__(self, options, context):
        pass

    async def send(self, delivery):
        return Delivered()

    async def close(self):
        pass
"""
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package that registers the code's `QueueSender` under a name."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(entry: str, code: str) -> None:
        module = f"acme_{tmp_path.name.replace('-', '_')}"
        add_distribution(tmp_path, module, code, group=registry.ENTRY_POINT_GROUP, entry=entry, target="QueueSender")

    return installed


def test_every_module_of_the_package_is_a_kind_that_loads() -> None:
    assert registry.kinds() == ("http", "kafka", "nats", "postgres", "python", "rabbitmq", "sqs")
    for kind in registry.kinds():
        assert registry.load(kind).kind == kind
        assert issubclass(registry.load(kind).Options, DestinationOptions)


def test_an_unknown_kind_is_refused_with_the_known_ones_named() -> None:
    with pytest.raises(DestinationInvalid, match="no destination type 'fax'; known are: http, kafka, nats, "):
        registry.load("fax")


def test_an_outside_kind_is_found_by_its_entry_point(install: Install) -> None:
    install("queue", GOOD.format(kind="queue"))
    assert registry.kinds() == ("http", "kafka", "nats", "postgres", "python", "queue", "rabbitmq", "sqs")
    assert registry.load("queue").kind == "queue"


def test_an_outside_kind_may_not_take_a_built_in_name(install: Install) -> None:
    install("http", GOOD.format(kind="http"))
    with pytest.raises(DestinationInvalid, match=r"'http' is built in and is also registered by .*:QueueSender"):
        registry.kinds()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (GOOD.format(kind="other"), "'queue' says that its kind is 'other'; wanted 'queue'"),
        ("import no_such_driver", "'queue' cannot be loaded: No module named 'no_such_driver'; is all installed?"),
        ("", "'queue' cannot be loaded: .*QueueSender"),
        ("class QueueSender:\n    kind = 'queue'\n", "'queue' has no Options; wanted a class of DestinationOptions"),
    ],
)
def test_a_kind_that_cannot_be_used_says_why(install: Install, code: str, message: str) -> None:
    install("queue", code)
    with pytest.raises(DestinationInvalid, match=message):
        registry.load("queue")
