"""Inserts a row for each event into a table of the team's own, over connections and in transactions of its own.

The columns are the headers of `gapless.destinations.headers` with underscores for dashes, and `payload`, which may be
`bytea`, `text`, `json` or `jsonb`. A row whose `idempotency_key` is there already stays as it is, so a retry and a
replay change nothing while the team keeps the row.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, ClassVar, TypeAlias

from msgspec import Meta

from gapless.destinations import brokers
from gapless.destinations.brokers import KeptConnection
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    DestinationInvalid,
    DestinationOptions,
    Failed,
    FailureReason,
    Result,
    SecretReader,
    SenderContext,
)
from gapless.destinations.headers import IDEMPOTENCY_KEY, NAMES, identity_headers
from gapless.errors import UserError

with suppress(ImportError):  # without the extra, the options can still be read
    import asyncpg

TYPED = {"gapless-occurred-at": "timestamptz", "gapless-attempt": "integer"}
"""Headers whose columns are no text."""
BYTES = "bytea"
TEXTS = frozenset(("text", "varchar", "json", "jsonb"))
CONNECTION_STATES = ("08", "53", "57", "58")
"""Classes of errors of a server that is absent, full, ending or broken. Source: appendix A, read November 2026."""
NOT_POSSIBLE = "22"
"""The class of values that the column can never hold, such as a payload that is no JSON."""

Table: TypeAlias = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z_][\w$]{0,62}(\.[A-Za-z_][\w$]{0,62})?\Z", description="a table or schema.table"),
]


class PostgresOptions(DestinationOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `postgres`."""

    url: SecretReader | None = None
    """The address of the database with its user and password, as of libpq. Required; read for each new connection."""
    table: Table = "gapless_event"
    """The table, in exactly this spelling; docs/brokers.md has the statement that makes it."""

    @property
    def address(self) -> str:
        """The table: the URL has a password."""
        return self.table

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        if self.url is None:
            yield "option url_env is missing; wanted url_env or url_file with postgresql://user:password@host/database"


class PostgresSender:
    """Inserts events into a table. Raises `DestinationInvalid` if the driver is not installed."""

    kind: ClassVar[str] = "postgres"
    Options: ClassVar[type[PostgresOptions]] = PostgresOptions

    def __init__(self, options: PostgresOptions, context: SenderContext) -> None:
        brokers.require("asyncpg", self.kind, context.name)
        if options.url is None:
            raise DestinationInvalid(f'destination "{context.name}": there is no url; set url_env or url_file')
        self._url = options.url
        self._table = options.table
        self._most = context.concurrency
        self._insert = insert_into(options.table)
        self._pool = KeptConnection(self._open, lambda _: True, _close)

    async def send(self, delivery: Delivery) -> Result:
        """Insert once, and return what the database said."""
        try:
            return await self._write(delivery)
        except UnicodeDecodeError:
            detail = "the payload is not UTF-8; make the column payload bytea"
            return Failed(reason=FailureReason.CANNOT_RENDER, detail=detail, permanent=True)
        except asyncpg.PostgresError as error:
            return refusal(error.sqlstate or "", brokers.described(_said(error)))
        except (asyncpg.InterfaceError, OSError, UserError, ValueError) as error:
            reason = FailureReason.TIMEOUT if isinstance(error, TimeoutError) else FailureReason.CONNECTION
            return Failed(reason=reason, detail=brokers.described(error))

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def address_problems(self) -> list[str]:
        """Return the problem if the database takes no connection, or the table is not as it must be."""
        try:
            pool = await self._pool.get()
            async with pool.acquire() as connection:
                kind = _payload_type(await connection.prepare(self._insert))
        except asyncpg.PostgresError as error:
            return [f"table {self._table}: {brokers.described(_said(error))}"]
        except (asyncpg.InterfaceError, OSError, UserError, ValueError) as error:
            return [f"{brokers.described(error)}; its deliveries will wait"]
        return [] if kind == BYTES or kind in TEXTS else [_wrong_type(kind)]

    async def _write(self, delivery: Delivery) -> Result:
        pool = await self._pool.get()
        connection = await pool.acquire()
        try:
            await connection.execute("BEGIN")  # for the statement and its use: poolers keep to a transaction
            result = await self._insert_row(connection, delivery)
            await connection.execute("COMMIT")
        except BaseException:  # of which cancellation is one: a silent server would not answer a ROLLBACK either
            connection.terminate()
            raise
        finally:
            await pool.release(connection)
        return result

    async def _insert_row(self, connection: Any, delivery: Delivery) -> Result:
        statement = await connection.prepare(self._insert)
        if (kind := _payload_type(statement)) not in TEXTS | {BYTES}:
            return Failed(reason=FailureReason.CONSUMER_ERROR, detail=_wrong_type(kind))
        payload = delivery.payload if kind == BYTES else delivery.payload.decode()
        is_new = await statement.fetchval(*_values(delivery), payload)
        return Delivered(detail="" if is_new else "the row was there already")

    async def _open(self) -> Any:
        return await asyncpg.create_pool(
            min_size=0,
            max_size=self._most,
            connect=self._connect,
            timeout=brokers.CONNECT_TIMEOUT_S,
            statement_cache_size=0,  # a pooler may give the next transaction another session
            server_settings={"application_name": "gapless"},
        )

    async def _connect(self, *_: object, **settings: Any) -> Any:
        return await asyncpg.connect(self._url.read().reveal(), **settings)


def insert_into(table: str) -> str:
    """Return the statement. Its last value is the payload, of the type of its column."""
    columns = [*(name.replace("-", "_") for name in NAMES), "payload"]
    values = [f"${at}::{TYPED.get(name, 'text')}" for at, name in enumerate(NAMES, start=1)]
    quoted = ".".join(f'"{part}"' for part in table.split("."))
    unique = IDEMPOTENCY_KEY.replace("-", "_")
    return (
        f"INSERT INTO {quoted} ({', '.join(columns)}) VALUES ({', '.join(values)}, ${len(columns)}) "  # noqa: S608 - names
        f"ON CONFLICT ({unique}) DO NOTHING RETURNING 1"
    )


def refusal(sqlstate: str, detail: str) -> Failed:
    """Return the failure that an error of the database means."""
    permanent = sqlstate.startswith(NOT_POSSIBLE)
    if permanent:
        reason = FailureReason.REJECTED
    elif sqlstate.startswith(CONNECTION_STATES):
        reason = FailureReason.CONNECTION
    else:
        reason = FailureReason.CONSUMER_ERROR
    return Failed(reason=reason, detail=f"{detail} ({sqlstate})", permanent=permanent)


def _values(delivery: Delivery) -> list[object]:
    headers = identity_headers(delivery)
    typed = {"gapless-occurred-at": delivery.occurred_at, "gapless-attempt": delivery.attempt}
    return [typed.get(name, headers.get(name)) for name in NAMES]


def _payload_type(statement: Any) -> str:
    name: str = statement.get_parameters()[-1].name
    return name


def _wrong_type(kind: str) -> str:
    return f"the column payload is of type {kind}; wanted bytea, text, json or jsonb"


def _said(error: "asyncpg.PostgresError") -> Exception:
    """Return the error with its message alone: its detail may have values of the payload."""
    return type(error)(error.args[0])  # type: ignore[no-any-return]


async def _close(pool: Any) -> None:
    pool.terminate()


SENDER = PostgresSender
