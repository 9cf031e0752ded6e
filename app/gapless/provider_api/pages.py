"""Walk the pages of a list, and store a request as a cursor, so that a walk can go on after a restart."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from gapless.provider_api.client import ProviderClient
from gapless_reconcilers.kit.contract import ConsumesEvents, ListsEvents, Page, Provider, Window
from gapless_reconcilers.kit.errors import OptionsInvalid, UnexpectedShape

Pages = AsyncGenerator[Page, None]


def walk_pages(
    client: ProviderClient, stream: str, window: Window, cursor: str | None = None, *, retry: bool = True
) -> aclosing[Pages]:
    """Return the pages of `window`, as a context manager around an async generator.

    `cursor` is a page's `next`, frozen: the walk goes on after that page. The next page is requested while the caller
    works on this one. With `retry` False each request is sent once. Raises `ProviderError`s; `UnexpectedShape` if a
    request repeats: the walk would never end.
    """
    return aclosing(_walk(client, stream, window, cursor, retry=retry))


async def _walk(client: ProviderClient, stream: str, window: Window, cursor: str | None, *, retry: bool) -> Pages:
    request: httpx.Request | None
    request = thaw(cursor) if cursor else as_lister(client.source.provider).first_request(stream, window)
    seen = {_fingerprint(request)}
    pending = asyncio.ensure_future(client.send(request, retry=retry))
    try:
        while request is not None:
            page = as_lister(client.source.provider).read_page(request, await pending, stream, window)
            request = page.next
            if request is not None:
                if (fingerprint := _fingerprint(request)) in seen:
                    raise UnexpectedShape("next page", "the address of a page that was read already", "a new one")
                seen.add(fingerprint)
                pending = asyncio.ensure_future(client.send(request, retry=retry))
            yield page
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


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
