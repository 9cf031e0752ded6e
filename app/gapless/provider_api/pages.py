"""Walk the pages of a list, and store a request as a cursor, so that a walk can go on after a restart."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

import httpx

from gapless.provider_api.client import PurposeClient
from gapless_reconcilers.kit import tolerant
from gapless_reconcilers.kit.contract import ConsumesEvents, ListsEvents, Page, Provider, Window
from gapless_reconcilers.kit.errors import OptionsInvalid, UnexpectedShape

Pages = AsyncGenerator[Page, None]
P = ParamSpec("P")
T = TypeVar("T")


def walk_pages(client: PurposeClient, stream: str, window: Window, cursor: str | None = None) -> aclosing[Pages]:
    """Return the pages of `window`, as a context manager around an async generator.

    `cursor` is a page's `next`, frozen: the walk goes on after that page. The next page is requested while the caller
    works on this one. Raises `ProviderError`s; `UnexpectedShape` if a request repeats: the walk would never end.
    """
    first = thaw(cursor) if cursor else as_lister(client.source.provider).first_request(stream, window)
    return walk_from(client, first, stream, window)


def walk_from(client: PurposeClient, first: httpx.Request, stream: str, window: Window) -> aclosing[Pages]:
    """Return the pages of `window` from the request `first` on, as `walk_pages` does."""
    return aclosing(_walk(client, first, stream, window))


async def first_page(client: PurposeClient, stream: str, window: Window) -> Page:
    """Return the first page of `window` alone. Raises `ProviderError`s."""
    lister = as_lister(client.source.provider)
    request = lister.first_request(stream, window)
    return lister.read_page(request, await client.send(request), stream, window)


async def _walk(client: PurposeClient, first: httpx.Request, stream: str, window: Window) -> Pages:
    request: httpx.Request | None = first
    seen = {_fingerprint(first)}
    pending = asyncio.ensure_future(client.send(first))
    try:
        while request is not None:
            read = partial(as_lister(client.source.provider).read_page, request)
            page = await read_or_ask_again(client, request, await pending, read, stream, window)
            request = page.next
            if request is not None:
                if (fingerprint := _fingerprint(request)) in seen:
                    raise UnexpectedShape("next page", "the address of a page that was read already", "a new one")
                seen.add(fingerprint)
                pending = asyncio.ensure_future(client.send(request))
            yield page
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


async def read_or_ask_again(
    client: PurposeClient,
    request: httpx.Request,
    response: httpx.Response,
    read: Callable[Concatenate[httpx.Response, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Return what `read` makes of the response. One that is no JSON, such as one cut short, is requested once more.

    Raises `UnexpectedShape` if it is no JSON twice, or has another shape.
    """
    try:
        return read(response, *args, **kwargs)
    except UnexpectedShape:
        if tolerant.is_json(response.content):
            raise
    return read(await client.send(request), *args, **kwargs)


def as_lister(provider: Provider) -> ListsEvents:
    """Return the provider as one that lists. Raises `OptionsInvalid`."""
    if isinstance(provider, ConsumesEvents):
        raise OptionsInvalid(
            f"provider {provider.kind!r} forgets what it has sent: its list cannot be audited or tried"
        )
    if not isinstance(provider, ListsEvents):
        raise OptionsInvalid(f"provider {provider.kind!r} lists nothing: only what it pushes can be known")
    return provider


def _fingerprint(request: httpx.Request) -> int:
    """Return a small value that is equal for equal requests: a walk keeps one for each page."""
    url = request.url
    return hash((request.method, url.raw_host, url.raw_path, tuple(request.headers.raw), request.content))


HOP_HEADERS = frozenset({"host", "content-length", "accept-encoding", "connection", "user-agent"})


def freeze(request: httpx.Request) -> str:
    """Return a provider's request as text, to be stored. It holds no credentials: those are added when it is sent."""
    headers = {name: value for name, value in request.headers.items() if name not in HOP_HEADERS}
    body = base64.b64encode(request.content).decode()
    return json.dumps([request.method, str(request.url), headers, body])


def thaw(text: str) -> httpx.Request:
    """Return the request that `freeze` stored."""
    method, url, headers, body = json.loads(text)
    return httpx.Request(method, url, headers=headers, content=base64.b64decode(body))
