"""The inputs of the contract suite: garbage, changed bytes, renamed fields, rendered events."""

import ast
import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import httpx
import msgspec

from gapless_reconcilers.kit.contract import (
    CannotRender,
    FetchesDetail,
    ListsEvents,
    MissingEvent,
    Provider,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.errors import ProviderError
from gapless_reconcilers.testing.suite.scenario import Scenario, make_request, make_response, read, walk

TARGET = "https://merchant.example/webhooks"
GARBAGE_BODIES = (
    b"", b"{", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe\x00", b'{"id":1}', b'{"id":null,"data":{}}', b"[" * 50_000,
    b'{"id":"","type":"","created":-1,"livemode":true,"data":{"object":{}}}', b'{"id":"\\u0000"}', b"x" * 300_000,
)  # fmt: skip
GARBAGE_HEADERS = (
    "", ",", "=", "t", "v1", "t=,v1=", "t=x,v1=y", "t=1", "v1,", "v1,!!!!", "a b c", "\xff\xfe", "t=1,v1=\xe9",
    "t=" + "9" * 5000, "sha256=", "=" * 10_000,
)  # fmt: skip


@contextmanager
def raises(wanted: type[ProviderError], what: str) -> Iterator[None]:
    """Require that the block raises `wanted`; `what` names its input in the message if it does not."""
    try:
        yield
    except wanted:
        return
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}; wanted {wanted.__name__}") from error
    raise AssertionError(f"{what} raised nothing; wanted {wanted.__name__}")


def unsigned_garbage(provider: Provider, scenario: Scenario) -> Iterator[WebhookRequest]:
    """Yield webhooks that no provider may accept: bad or repeated signature headers, unsigned bodies."""
    webhook = scenario.webhook
    for name in provider.capabilities.signature_headers:
        others = tuple(pair for pair in webhook.headers if pair[0] != name.encode())
        for value in GARBAGE_HEADERS:
            yield WebhookRequest(headers=(*others, (name.encode(), value.encode("latin-1"))), body=webhook.body)
        yield WebhookRequest(headers=(*webhook.headers, (name.encode(), b"again")), body=webhook.body)
    for body in GARBAGE_BODIES:
        yield WebhookRequest(headers=webhook.headers, body=body)


def signed_garbage(provider: Provider, scenario: Scenario) -> Iterator[WebhookRequest]:
    """Yield garbage bodies with a valid signature, as far as the provider's `render` signs them."""
    for body in GARBAGE_BODIES:
        event = RecordedEvent(key="key", type="type", occurred_at=scenario.now, stream="", payload=body, via="webhook")
        message = render(provider, scenario, event)
        if message is not None and message.body == body:
            yield make_request(message.headers, message.body)


def render(provider: Provider, scenario: Scenario, event: RecordedEvent) -> WebhookMessage | None:
    """Return `event` as a webhook signed with the scenario's secret, or None if it cannot be rendered."""
    message = provider.render(event, TARGET, Secret(scenario.signing_secret), scenario.now)
    return None if isinstance(message, CannotRender) else message


def recorded(event: RemoteEvent, *, via: str) -> RecordedEvent:
    """Return `event` as the ledger would hold it, without headers."""
    return RecordedEvent(
        key=event.key,
        type=event.type,
        occurred_at=event.occurred_at,
        stream=event.stream,
        payload=bytes(event.payload),
        via=via,
    )


def read_again(provider: Provider, scenario: Scenario, event: RemoteEvent) -> tuple[RemoteEvent, ...]:
    """Render a listed event and read it as a webhook; empty if it cannot be rendered."""
    message = render(provider, scenario, recorded(event, via="list"))
    if message is None:
        return ()
    try:
        return read(provider, scenario, make_request(message.headers, message.body)).events
    except ProviderError as error:
        raise AssertionError(f"the rendering of {event.key} is refused: {error}") from error


def refusals(provider: Provider, scenario: Scenario) -> Iterator[Exception]:
    """Yield the provider's errors about webhooks and responses, to be searched for secrets."""
    attempts: list[Callable[[], object]] = [
        partial(read, provider, scenario, webhook) for webhook in unsigned_garbage(provider, scenario)
    ]
    if isinstance(provider, ListsEvents) and scenario.lists:
        request = provider.first_request(scenario.stream, scenario.window)
        page = make_response(request, b"<html>")
        attempts.append(partial(provider.read_page, request, page, scenario.stream, scenario.window))
    for attempt in attempts:
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 - other rules judge which error it is
            yield error


def shape(request: httpx.Request) -> tuple[str, str, tuple[tuple[bytes, bytes], ...], bytes]:
    """Return everything in which two requests can differ."""
    return request.method, str(request.url), tuple(request.headers.raw), request.content


def flip(body: bytes, at: int) -> bytes:
    """Return `body` with one bit of the byte at `at` changed."""
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def rename(page: bytes, path: str) -> bytes:
    """Return `page` with the field at dotted `path` renamed; if the path is empty, with an object around the array."""
    body: Any = json.loads(page)
    *parents, last = path.split(".")
    if not last:
        return json.dumps({"renamed": body}).encode()
    holder = body
    for name in parents:
        holder = holder[name]
    holder[f"{last}_renamed"] = holder.pop(last)
    return json.dumps(body).encode()


ODD_FIELDS = b'{"gapless_odd":"x\\ud83d","gapless_deep":%b,' % (b"[" * 5000 + b"]" * 5000)
"""The beginning of an object with fields that are legal JSON, and that no decoder should look into."""
MARK = "gapless_mark"
"""The text that is replaced by bytes that no JSON encoder writes."""


def with_row(page: bytes, path: str, row: bytes, *, at_end: bool) -> bytes:
    """Return `page` with one more row at the beginning or the end of the array at `path`."""
    body: Any = json.loads(page)
    rows = _array_at(body, path)
    rows.insert(len(rows) if at_end else 0, MARK)
    return json.dumps(body).encode().replace(json.dumps(MARK).encode(), row)


def with_odd_fields(page: bytes, path: str) -> bytes:
    """Return `page` with `ODD_FIELDS` in each row of the array at `path`."""
    body: Any = json.loads(page)
    rows = _array_at(body, path)
    rows[:] = [{MARK: 0, **row} for row in rows]
    return json.dumps(body).encode().replace(b'{"%b": 0, ' % MARK.encode(), ODD_FIELDS)


def _array_at(body: Any, path: str) -> list[Any]:
    for name in path.split(".") if path else ():
        body = body[name]
    rows: list[Any] = body
    return rows


@cache
def imported_modules(source: str) -> frozenset[str]:
    """Return the top-level names of all modules that `source` imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return frozenset(name.split(".")[0] for name in names)


def sources_of(provider_type: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield name and source of the provider's module, or of every module of a package that exports it as `PROVIDER`."""
    module = sys.modules[provider_type.__module__]
    package = sys.modules.get(module.__package__ or "")
    if package and getattr(package, "PROVIDER", None) is provider_type:
        module = package
    yield module.__name__, inspect.getsource(module)
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}."):
        yield inner.name, inspect.getsource(importlib.import_module(inner.name))


def with_body(webhook: WebhookRequest, body: bytes) -> WebhookRequest:
    """Return `webhook` with another body and the same headers."""
    return msgspec.structs.replace(webhook, body=body)


def without_header(webhook: WebhookRequest, name: str) -> WebhookRequest:
    """Return `webhook` without the header `name`."""
    kept = tuple(pair for pair in webhook.headers if pair[0] != name.encode())
    return msgspec.structs.replace(webhook, headers=kept)


def missing_of(event: RemoteEvent) -> MissingEvent:
    """Return a listed event as one that is missing."""
    return MissingEvent(
        key=event.key, type=event.type, occurred_at=event.occurred_at, stream=event.stream, ref=event.ref
    )


def whole_events(scenario: Scenario) -> list[RemoteEvent]:
    """Return the scenario's events with the payload that the ledger would store: listed, fetched, or of the webhook."""
    provider = scenario.provider()
    if not scenario.lists:
        return list(read(provider, scenario).events)
    if provider.capabilities.remedy is not Remedy.DETAIL or not isinstance(provider, FetchesDetail):
        return walk(scenario)
    whole = []
    for listed, body in details_of(scenario):
        missing = missing_of(listed)
        whole.append(provider.read_detail(missing, make_response(provider.detail_request(missing), body)))
    return whole


def details_of(scenario: Scenario) -> Iterator[tuple[RemoteEvent, bytes]]:
    """Yield each listed event with the response to the request for this event."""
    listed = {event.key: event for event in walk(scenario)}
    for expected, body in zip(scenario.expected, scenario.details, strict=True):
        if expected.key in listed:
            yield listed[expected.key], body
