"""What an action of the pages is: what is shown before it, its fields, and the command that does the same. Pure."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from gapless.status.report import StatusReport

Asked: TypeAlias = Mapping[str, str]
"""What the address or the form says, without what is empty."""
REASON: Final = "…"
"""Where the reason stands in a command, until it is written."""


class NothingToDo(Exception):
    """There is nothing that this action could be done to. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """A field of the form. `choices` empty: a text. `word`: what it stands for in the command."""

    name: str
    label: str
    choices: tuple[tuple[str, str], ...] = ()
    value: str = ""
    hint: str = ""
    word: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPreview:
    """What is shown before an action: what it does, to how many, and how else it is done."""

    title: str
    verb: str
    """What the button says: the verb and the number."""
    effects: tuple[str, ...]
    command: str
    fields: tuple[FormField, ...] = ()
    danger: bool = False
    hint: str = "It is kept in the audit log beside your name."


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAction:
    """One action. `prepare` says what it would do; `args` are the arguments of the operation."""

    operation: str
    prepare: Callable[[StatusReport, Asked], ActionPreview]
    args: Callable[[Asked, datetime], dict[str, object]]
    done: Callable[[Mapping[str, object]], str]
    reason: str = "note"
    """The field of the operation that is the reason."""


def command(*words: str | None) -> str:
    """Return the command with these words, as a shell takes it; None: left out."""
    return "gapless " + " ".join(
        each if each == f'"{REASON}"' else shlex.quote(each) for each in words if each is not None
    )


def option(name: str, value: str | None) -> tuple[str | None, str | None]:
    """Return the words of an option; None: it is left out."""
    return (None, None) if value is None else (name, value)


def needed(asked: Asked, name: str) -> str:
    """Return what the address must say. Raises `NothingToDo`."""
    if name not in asked:
        raise NothingToDo(f"the address lacks {name}")
    return asked[name]


def number(text: str) -> int:
    """Return the number of a row. Raises `NothingToDo`."""
    if not text.isdecimal() or len(text) > 18:  # noqa: PLR2004 - digits of the greatest id
        raise NothingToDo(f"{text!r} is no number")
    return int(text)


def told(name: str, words: str) -> Callable[[Mapping[str, object]], str]:
    """Return what says the result of that name in these words, or that a job does it, because there are many."""

    def say(result: Mapping[str, object]) -> str:
        if name not in result and "job" in result:
            return f"There are many, so job {result['job']} does it: gapless job show {result['job']}."
        return words.format(result.get(name))

    return say
