"""What the address of a page asks for: its filters, and the links that take one of them away."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from gapless.console.api.shared import AnyRequest, refuse

LONGEST: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A filter in force: what it says, and the address without it."""

    words: str
    without: str


class Asking:
    """The query of a page's address. An empty field of a form asks for nothing.

    Raises `HTTPException` (400) if a field has a NUL.
    """

    def __init__(self, request: AnyRequest) -> None:
        if any("\0" in value for value in request.query_params.values()):
            refuse("the address has a NUL (U+0000), which no ledger holds; take it out")
        self.path = request.url.path
        self._asked: Mapping[str, str] = {
            name: value.strip()[:LONGEST] for name, value in request.query_params.items() if value.strip()
        }

    def text(self, name: str) -> str | None:
        """Return what is asked for; None: nothing."""
        return self._asked.get(name)

    def choice(self, name: str, known: Collection[str]) -> str | None:
        """Return what is asked for. Raises `HTTPException` (400) if it is none of `known`."""
        value = self._asked.get(name)
        if value is not None and value not in known:
            refuse(f"{name} is {value!r}; wanted one of {', '.join(known)}")
        return value

    def in_force(self, *names: str) -> list[InForce]:
        """Return the filters of these names that are in force."""
        return [
            InForce(words=f"{name} {self._asked[name]}", without=self._address({name, "after"}))
            for name in names
            if name in self._asked
        ]

    @property
    def newest(self) -> str | None:
        """The address of the first page; None: this is it."""
        return self._address({"after"}) if "after" in self._asked else None

    def older(self, after: str | None) -> str | None:
        """Return the address of the next page; None: there is none."""
        return None if after is None else self._address({"after"}, after=after)

    def _address(self, without: Collection[str], **more: str) -> str:
        rest = {name: value for name, value in self._asked.items() if name not in without} | more
        return f"{self.path}?{urlencode(rest)}" if rest else self.path
