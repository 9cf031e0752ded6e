"""Walk the pages of a list, and keep a cursor that outlives the process."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from gapless.provider_api.client import ProviderClient
from gapless_reconcilers.kit.contract import ConsumesEvents, ListsEvents, Page, Provider, Window
from gapless_reconcilers.kit.errors import OptionsInvalid, UnexpectedShape

Walked = AsyncGenerator[Page, None]


def walk_pages(client: ProviderClient, stream: str, window: Window, cursor: str | None = None) -> aclosing[Walked]:
    """The pages of `window`, as a context manager around an async generator.

    The walk can go on after a page from its `next`, frozen as `cursor`. The next page is asked for while
    the caller works on this one. Raises `ProviderError`s; `UnexpectedShape` if a request comes round
    again, which would never end.
    """
    return aclosing(_walk(client, stream, window, cursor))


async def _walk(client: ProviderClient, stream: str, window: Window, cursor: str | None) -> Walked:
    request: httpx.Request | None
    request = thaw(cursor) if cursor else as_lister(client.source.provider).first_request(stream, window)
    asked = {_mark(request)}
    pending = asyncio.ensure_future(client.send(request))
    try:
        while request is not None:
            page = as_lister(client.source.provider).read_page(request, await pending, stream, window)
            request = page.next
            if request is not None:
                if (mark := _mark(request)) in asked:
                    raise UnexpectedShape("next page", "the address of a page that was read already", "a new one")
                asked.add(mark)
                pending = asyncio.ensure_future(client.send(request))
            yield page
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


def as_lister(provider: Provider) -> ListsEvents:
    """The provider as one that lists. Raises `OptionsInvalid`."""
    if isinstance(provider, ConsumesEvents):
        raise OptionsInvalid(f"what {provider.kind!r} hands out is gone afterwards: it cannot be audited or tried")
    if not isinstance(provider, ListsEvents):
        raise OptionsInvalid(f"provider {provider.kind!r} lists nothing: what it pushes is all that can be known")
    return provider


def _mark(request: httpx.Request) -> int:
    """Equal for equal requests, and small: a walk remembers one for each page."""
    url = request.url
    return hash((request.method, url.raw_host, url.raw_path, tuple(request.headers.raw), request.content))


HOP_HEADERS = frozenset({"host", "content-length", "accept-encoding", "connection", "user-agent"})


def freeze(request: httpx.Request) -> str:
    """A provider's request as text, to be stored. It holds no credentials: the engine adds those when it sends."""
    headers = {name: value for name, value in request.headers.items() if name not in HOP_HEADERS}
    body = base64.b64encode(request.content).decode()
    return json.dumps([request.method, str(request.url), headers, body])


def thaw(text: str) -> httpx.Request:
    """The request that `freeze` stored."""
    method, url, headers, body = json.loads(text)
    return httpx.Request(method, url, headers=headers, content=base64.b64decode(body))
