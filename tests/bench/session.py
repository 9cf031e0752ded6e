"""What a team writes first: verify, then a SQLModel session and a commit for each webhook.

It stores the same rows (payload, event, one delivery) in the same tables and is as durable. It counts
nothing, and knows no batch. SQLite: a synchronous session in Litestar's threads, which was faster here
than aiosqlite. PostgreSQL: an async session over asyncpg.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from litestar import Litestar, Request, Response, post
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from gapless.domain import system_clock, to_us
from gapless.ledger.tables import DeliveryRow, EventRow, PayloadRow
from gapless_reconcilers.kit.contract import Provider, RemoteEvent, WebhookRequest
from gapless_reconcilers.kit.errors import WebhookRefused

DUPLICATE = "duplicate"


def build_app(url: str, provider: Provider, path: str) -> Litestar:
    """An application with one route."""
    handler = _on_postgresql(url, provider, path) if url.startswith("postgresql") else _on_sqlite(url, provider, path)
    return Litestar([handler], openapi_config=None, logging_config=None)


def _on_sqlite(url: str, provider: Provider, path: str) -> Any:
    engine = _sqlite_engine(url)

    @post(path, sync_to_thread=True)
    def webhook(request: Request[Any, Any, Any], body: bytes) -> Response[bytes]:
        return _answer(provider, request, body, lambda event, now: _store(engine, event, body, now))

    return webhook


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, pool_size=40, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        for pragma in "journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "cache_size=-65536":
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _store(engine: Engine, event: RemoteEvent, body: bytes, now: datetime) -> None:
    with Session(engine) as session:
        payload = PayloadRow(body=body, stored_us=to_us(now))
        session.add(payload)
        session.flush()
        recorded = _event_row(event, payload.id, now)
        session.add(recorded)
        session.flush()
        session.add(_delivery_row(recorded.seq, now))
        session.commit()


def _answer(
    provider: Provider, request: Request[Any, Any, Any], body: bytes, store: Callable[[RemoteEvent, datetime], None]
) -> Response[bytes]:
    now = system_clock()
    try:
        reply = provider.read_webhook(WebhookRequest(headers=tuple(request.scope["headers"]), body=body), now)
    except WebhookRefused:
        return Response(b"", status_code=400)
    for each in reply.events:
        try:
            store(each, now)
        except IntegrityError:
            continue
    return Response(b"", status_code=200)


def _on_postgresql(url: str, provider: Provider, path: str) -> Any:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1), pool_size=16, max_overflow=0)

    async def store(event: RemoteEvent, body: bytes, now: datetime) -> None:
        async with AsyncSession(engine) as session:
            payload = PayloadRow(body=body, stored_us=to_us(now))
            session.add(payload)
            await session.flush()
            recorded = _event_row(event, payload.id, now)
            session.add(recorded)
            await session.flush()
            session.add(_delivery_row(recorded.seq, now))
            await session.commit()

    @post(path)
    async def webhook(request: Request[Any, Any, Any]) -> Response[bytes]:
        body, found = await request.body(), list[tuple[RemoteEvent, datetime]]()
        answer = _answer(provider, request, body, lambda event, now: found.append((event, now)))
        for event_found, now in found:
            try:
                await store(event_found, body, now)
            except IntegrityError:
                continue
        return answer

    return webhook


def _event_row(event: RemoteEvent, payload_id: int | None, now: datetime) -> EventRow:
    return EventRow(
        source_id=1,
        stream_id=1,
        key=event.key,
        type=event.type,
        object_key=event.object_key,
        occurred_us=to_us(event.occurred_at),
        first_seen_us=to_us(now),
        via="webhook",
        expected=True,
        webhook_us=to_us(now),
        webhook_count=1,
        payload_id=payload_id,
    )


def _delivery_row(seq: int | None, now: datetime) -> DeliveryRow:
    return DeliveryRow(destination_id=1, event_seq=seq, next_us=to_us(now), created_us=to_us(now))
