"""Access of commands to the ledger.

Commands read from the database. They write through the daemon that holds the SQLite ledger, or directly if none does.
"""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import click
import httpx
import msgspec

from gapless.bootstrap.runtime import ProcessParts, open_runtime
from gapless.bootstrap.store import open_configured_store
from gapless.ledger import Connection, schema
from gapless.ledger.engine import SqliteStore, Store, StoreInvalid, StoreUnavailable, naming_store
from gapless.ledger.engine.lock import LedgerHeld, LockHolder, holder_of, refuse_other_file
from gapless.ledger.jobs import JobState, StoredJob
from gapless.operations import jobs
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.endpoint_notes import EndpointAction
from gapless.operations.principals import ACTOR_HEADER, AccessRole, Principal
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
CALL_TIMEOUT_S = 120.0
LONG_CALLS_S = {"event.erase": 3600.0}
"""Time for operations that may look through the whole ledger."""
Operate: TypeAlias = Callable[[str, Mapping[str, object]], Awaitable[dict[str, Any]]]
"""Performs the operation of that name. Raises `OperationRefused` and `StoreError`."""


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[Store]:
    """Open the store to read from it. Raises `StoreInvalid` if there is no ledger yet, or one of another release."""
    url = settings.store.url.read().reveal()
    store = open_configured_store(settings)
    if isinstance(store, SqliteStore) and not store.path.exists():
        refuse_other_file(store.path)
        raise StoreInvalid(f"there is no ledger at {store.path}; `gapless serve` makes one")
    try:
        with naming_store(url):
            mismatch = schema.mismatch(await store.read(schema.version))
        if mismatch is not None:
            raise StoreInvalid(mismatch)
        yield store
    finally:
        await store.close()


def read_ledger(
    settings: Settings, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what `query(connection, …)` finds in the ledger."""

    async def find() -> T:
        async with open_reader(settings) as store:
            return await store.read(query, *args, **kwargs)

    return asyncio.run(find())


async def operate(settings: Settings, name: str, args: Mapping[str, object]) -> dict[str, Any]:
    """Perform an operation in the daemon that holds the SQLite ledger, else here. Raises `OperationRefused`."""
    async with open_operations(settings) as perform_one:
        return await perform_one(name, args)


@asynccontextmanager
async def open_operations(settings: Settings) -> AsyncIterator[Operate]:
    """Yield a function that performs operations in the daemon that holds the SQLite ledger, else here."""
    async with AsyncExitStack() as stack:
        holder = daemon_of(settings)
        if holder is None:
            try:
                parts = await stack.enter_async_context(open_runtime(settings, os.environ))
            except LedgerHeld as error:  # a daemon that has just started
                holder = error.holder
                if holder is None or not holder.url:
                    raise
        yield perform_here(parts, settings) if holder is None else partial(call_daemon, holder)


async def note_endpoint(settings: Settings, source: str, action: EndpointAction, detail: str) -> None:
    """Write into the audit log what is done at a provider. Before there is a ledger, only say that it is not.

    Raises `StoreError`: then nothing may be done that could not be noted.
    """
    if not await _has_ledger(settings):
        click.echo("gapless: there is no ledger yet, so this is not in the audit log", err=True)
        return
    args = {"source": source, "action": action.value, "detail": detail[:1000]}
    await operate(settings, "endpoint.note", args)


async def _has_ledger(settings: Settings) -> bool:
    """Return True if the store has our tables, of whatever release. Raises `StoreError`."""
    store = open_configured_store(settings)
    try:
        if isinstance(store, SqliteStore) and not store.path.exists():
            return False
        with naming_store(settings.store.url.read().reveal()):
            return await store.read(schema.version) is not None
    finally:
        await store.close()


def perform_here(parts: ProcessParts, settings: Settings) -> Operate:
    """Return a function that performs operations in this process, in the name of the user who has called it."""
    runtime = parts.runtime
    evidence = EvidenceFetcher(parts.client, runtime.clock, runtime.metrics)
    context = OperationContext(
        runtime=runtime,
        evidence=evidence,
        stream_ids=StreamIds(runtime.writer),
        destinations=parts.destinations,
        second_person_above=settings.private.second_person_above,
    ).acting_as(Principal(name=user_name(), role=AccessRole.OWNER))

    async def operate_here(name: str, args: Mapping[str, object]) -> dict[str, Any]:
        done = plain(await perform(context, name, args))
        begun = done.get("result", done)
        if parts.lock is not None and "job" in begun:  # no daemon can work it while this process holds the ledger
            ended = await jobs.work_to_end(runtime, begun["job"], show_progress)
            begun |= {"state": ended.state.value, "done": ended.done, "left_out": ended.left_out}
        return done

    return operate_here


def show_progress(job: StoredJob) -> None:
    """Print how far a job is that this process works."""
    if job.state is JobState.RUNNING:
        click.echo(f"job {job.id}: {job.done + job.left_out} of {job.planned}", err=True)


def daemon_of(settings: Settings) -> LockHolder | None:
    """Return the daemon that holds the SQLite ledger; None on PostgreSQL or if none runs."""
    store = open_configured_store(settings)
    holder = holder_of(store.path) if isinstance(store, SqliteStore) else None
    return holder if holder is not None and holder.url and holder.is_running else None


async def call_daemon(holder: LockHolder, name: str, args: Mapping[str, object]) -> dict[str, Any]:
    """Perform an operation through the daemon's private API."""
    within_s = LONG_CALLS_S.get(name, CALL_TIMEOUT_S)
    return await ask_daemon(holder, "POST", f"/api/operations/{name}", msgspec.json.encode(args), within_s)


async def ask_daemon(
    holder: LockHolder, method: str, path: str, body: bytes | None = None, within_s: float = CALL_TIMEOUT_S
) -> dict[str, Any]:
    """Return the answer of the daemon's private API. Raises `OperationRefused` and `StoreUnavailable`."""
    headers = {
        "authorization": f"Bearer {holder.token}",
        "content-type": "application/json",
        ACTOR_HEADER: user_name(),
    }
    async with httpx.AsyncClient(timeout=within_s, trust_env=False) as client:
        try:
            response = await client.request(method, f"{holder.url}{path}", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise StoreUnavailable(
                f"the daemon (process {holder.pid}) does not answer at {holder.url}: {error}"
            ) from error
    if response.is_client_error:
        raise OperationRefused(_error_text(response))
    if not response.is_success:
        raise StoreUnavailable(f"the daemon answered {response.status_code}: {_error_text(response)}")
    answer: dict[str, Any] = response.json()
    return answer


def user_name() -> str:
    """Return the name of the user of this machine who has called the command, for the audit log."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # in a container, for example
        name = f"uid {number}"
    return name if name.isascii() and name.isprintable() else f"uid {number}"


def _error_text(response: httpx.Response) -> str:
    try:
        return str(response.json().get("error") or response.json().get("detail") or response.text)
    except (ValueError, AttributeError):
        return response.text.strip()


def plain(value: Mapping[str, object]) -> dict[str, Any]:
    """Return `value` with the types of JSON: times as text."""
    builtins: dict[str, Any] = msgspec.to_builtins(value)
    return builtins


__all__ = [
    "Operate",
    "ask_daemon",
    "call_daemon",
    "daemon_of",
    "note_endpoint",
    "open_operations",
    "open_reader",
    "operate",
    "plain",
    "read_ledger",
    "show_progress",
]
