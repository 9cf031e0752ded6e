"""The contract and the kit keep what they have: a provider that was written against them goes on working.

`frozen.txt` is what was frozen, a line for each name, field, value and method: of the contract and its errors by bare
names, of the rest of the kit by module. A line that is gone fails here; what is added is an ability of its own, or a
field with a default. A line leaves the file only with an entry in the changelog that tells authors of providers.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from gapless_reconcilers import kit
from gapless_reconcilers.kit import contract, errors

FROZEN = Path(__file__).with_name("frozen.txt")
MODULES = sorted({module.name for module in pkgutil.iter_modules(kit.__path__)} - {"contract", "errors"})


def lines() -> Iterator[str]:
    """The contract and the rest of the kit as they are."""
    for name in sorted(contract.__all__):
        yield from described(name, getattr(contract, name))
    for _, each in sorted(vars(errors).items()):
        if inspect.isclass(each) and issubclass(each, errors.ProviderError):
            yield of_class(each)

    for name in MODULES:
        yield from exported(importlib.import_module(f"{kit.__name__}.{name}"))


def exported(module: ModuleType) -> Iterator[str]:
    """What a module of the kit offers: its own functions and classes, and its constants."""
    short = module.__name__.rpartition(".")[2]
    for name, each in sorted(vars(module).items()):
        is_its_own = getattr(each, "__module__", module.__name__) == module.__name__ and not hasattr(contract, name)
        if name.startswith("_") or not is_its_own:
            continue
        if inspect.isfunction(inspect.unwrap(each)):
            yield f"{short}: {name}({', '.join(inspect.signature(each).parameters)})"
        elif inspect.isclass(each):
            yield f"{short}: {of_class(each)}"
            yield from described(f"{short}: {name}", each)
        elif name.isupper() and len(name) > 1:
            yield f"{short}: {name}" + (f" = {each!r}" if isinstance(each, int | str | tuple) else "")


def of_class(each: type) -> str:
    """A class, what it is one of, and what it is made of."""
    return f"{each.__name__}({each.__bases__[0].__name__})({', '.join(inspect.signature(each.__init__).parameters)})"


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


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_kit_is_frozen(module: str) -> None:
    assert any(line.startswith(f"{module}: ") for line in FROZEN.read_text().splitlines())


def test_every_optional_ability_is_named_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/adding-a-provider.md").read_text()
    protocols = [name for name in contract.__all__ if getattr(getattr(contract, name), "_is_protocol", False)]
    assert len(protocols) > 8
    assert [name for name in protocols if name not in guide] == []
