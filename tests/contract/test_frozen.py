"""The contract keeps what it has: a provider that was written against it goes on working.

`frozen.txt` is the contract as it was frozen, a line for each name, field, value and method. A line that is gone fails
here; what is added is an ability of its own, or a field with a default. Never take a line out of the file.
"""

import dataclasses
import inspect
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from gapless_reconcilers.kit import contract, errors

FROZEN = Path(__file__).with_name("frozen.txt")


def lines() -> Iterator[str]:
    """The contract as it is."""
    for name in sorted(contract.__all__):
        yield from described(name, getattr(contract, name))
    for name, each in sorted(vars(errors).items()):
        if inspect.isclass(each) and issubclass(each, errors.ProviderError):
            yield f"{name}({each.__bases__[0].__name__})({', '.join(inspect.signature(each.__init__).parameters)})"


def described(name: str, each: Any) -> Iterator[str]:
    """One name of the contract."""
    if not inspect.isclass(each):
        yield f"{name}" if not isinstance(each, int | str) else f"{name} = {each!r}"
    elif issubclass(each, StrEnum):
        yield from (f"{name}.{member.name} = {member.value}" for member in each)
    elif issubclass(each, msgspec.Struct):
        yield from (field(name, one.name, one.required) for one in msgspec.structs.fields(each))
    elif dataclasses.is_dataclass(each):
        for one in dataclasses.fields(each):
            has_none = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
            yield field(name, one.name, has_none)
    for method, function in vars(each).items() if inspect.isclass(each) else ():
        if not method.startswith("_") and inspect.isfunction(function):
            yield f"{name}.{method}({', '.join(inspect.signature(function).parameters)})"


def field(owner: str, name: str, required: bool) -> str:
    return f"{owner}.{name}" if required else f"{owner}.{name} = default"


def test_nothing_that_was_frozen_is_gone() -> None:
    gone = set(FROZEN.read_text().splitlines()) - set(lines())
    assert not gone, f"providers out there rely on {sorted(gone)}"


def test_what_was_added_asks_nothing_of_those_that_are_there() -> None:
    frozen = set(FROZEN.read_text().splitlines())
    owners = {line.partition(".")[0] for line in frozen if "." in line}
    asks = [
        line
        for line in set(lines()) - frozen
        if line.partition(".")[0] in owners and "(" not in line and " = " not in line
    ]
    assert not asks, f"a field that all must give: {asks}; give it a default"


def test_every_optional_ability_is_named_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/adding-a-provider.md").read_text()
    protocols = [name for name in contract.__all__ if getattr(getattr(contract, name), "_is_protocol", False)]
    assert len(protocols) > 8
    assert [name for name in protocols if name not in guide] == []
