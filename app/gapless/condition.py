"""A condition on the payload of an event: a JMESPath expression that is true or false.

It is evaluated in the transaction that records the event, on what strangers may have written. So it has bounds: the
bytes of the payload, and the steps of the evaluation. JMESPath has no loops but over the payload's own arrays, no
regular expressions, and nothing of the surroundings.
"""

from collections.abc import Iterator
from typing import Any, Final

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

MOST_BYTES: Final = 2**20
"""Longest payload that is judged. Decoding it takes about ten milliseconds, sorting all of it takes fifty."""
MOST_STEPS: Final = 10_000
"""Most steps of one evaluation: some ten milliseconds. A usual condition takes about ten."""
MOST_CHARACTERS: Final = 2_000
WANTED: Final = "a JMESPath expression that is true or false, such as data.object.currency == 'eur'"


class ConditionInvalid(ValueError):
    """The text is no condition. The message says what is wrong with it."""


class Document:
    """A payload that conditions are asked about. It is decoded once, when the first one asks."""

    __slots__ = ("_payload", "_read")

    def __init__(self, payload: bytes | msgspec.Raw) -> None:
        self._payload = payload
        self._read: list[object] | None = None

    def read(self) -> object:
        """Return the value. Raises `ValueError` and `RecursionError` if it cannot be read."""
        if self._read is None:
            payload = bytes(self._payload)
            if len(payload) > MOST_BYTES:
                raise ValueError(f"the payload has {len(payload)} bytes; at most {MOST_BYTES} are judged")
            self._read = [msgspec.json.decode(payload)]
        return self._read[0]


class Condition:
    """A checked expression. Raises `ConditionInvalid`."""

    __slots__ = ("_tree", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._tree = _parsed(text)

    def judge(self, document: Document) -> bool | None:
        """Return whether it is true; None: it cannot be evaluated, or is neither true nor false."""
        try:
            found = _Bounded().visit(self._tree, document.read())
        except Exception:  # noqa: BLE001 - whatever a payload does to the library, the event must be recorded
            return None
        return found if isinstance(found, bool) else None

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Condition) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)


class _TooManySteps(Exception):
    """The evaluation would take too long."""


class _Bounded(TreeInterpreter):  # type: ignore[misc]  # the library has no types
    def __init__(self) -> None:
        super().__init__()
        self._left = MOST_STEPS

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _TooManySteps
        return super().visit(node, *args, **kwargs)


def _parsed(text: str) -> dict[str, Any]:
    """Return the tree of the expression. Raises `ConditionInvalid`, also for what would fail on every payload."""
    if len(text) > MOST_CHARACTERS:
        raise ConditionInvalid(f"it has {len(text)} characters; at most {MOST_CHARACTERS} are read")
    try:
        tree: dict[str, Any] = jmespath.compile(text).parsed
    except JMESPathError as error:
        raise ConditionInvalid(str(error).partition("\n")[0].rstrip(":")) from error
    except RecursionError:
        raise ConditionInvalid("it is nested too deeply") from None
    for name, count in _calls(tree):
        _check_call(name, count)
    return tree


def _check_call(name: str, count: int) -> None:
    """Raise `ConditionInvalid` for a call that fails on every payload."""
    if name not in Functions.FUNCTION_TABLE:
        raise ConditionInvalid(f"there is no function {name}; there are {', '.join(sorted(Functions.FUNCTION_TABLE))}")
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    least, more = len(signature), bool(signature and signature[-1].get("variadic"))
    if count < least or (count > least and not more):
        raise ConditionInvalid(f"{name} takes {least}{' or more' if more else ''} arguments, not {count}")


def _calls(node: Any) -> Iterator[tuple[str, int]]:
    """Yield the functions that are called, each with the number of its arguments."""
    if node.get("type") == "function_expression":
        yield node["value"], len(node["children"])
    for child in node.get("children", ()):
        if isinstance(child, dict):
            yield from _calls(child)
