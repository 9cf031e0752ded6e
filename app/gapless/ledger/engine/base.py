"""A store: a database that runs the ledger's statements in transactions."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")


class Store(ABC):
    """A database that runs statements in transactions."""

    dialect: str

    @abstractmethod
    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` returns, in a transaction that only reads. Raises `StoreError`."""

    @abstractmethod
    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in one transaction and return its result once that is durable. Raises `StoreError`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Free space where the data lies; None: not ours to see."""


def bind(
    work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> Callable[[Connection], T]:
    """Return `work` with all its arguments but the connection."""

    def bound(connection: Connection) -> T:
        return work(connection, *args, **kwargs)

    return bound
