"""The connections to a handler: each is made to an address that was checked when its name was resolved.

aiohttp resolves the name and connects to what the resolver returns, with the host's name in `Host` and in TLS. So there
is no second look-up that could return another address. A connection that is kept is one that was checked.
"""

import socket
import ssl
from ipaddress import IPv6Address, ip_address

import aiohttp
import certifi
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gapless.destinations.http.addresses import Address, AddressRefused, AddressRule, addresses_of

CONNECT_TIMEOUT_S = 5.0
"""Timeout for a new connection; the whole attempt has the destination's timeout."""
KEPT_S = 4.0
"""Time for which an idle connection is kept: less than after which common servers close theirs."""
OURS_ALONE = ("accept", "accept-encoding", "content-type", "user-agent")
"""Headers that the client would add by itself."""


class CheckedResolver(AbstractResolver):
    """Resolves names to permitted addresses. Raises `AddressRefused` if one of a host's addresses is not permitted."""

    def __init__(self, rule: AddressRule, scheme: str) -> None:
        self._rule = rule
        self._scheme = scheme

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of the host, in the system's order of preference. Raises `OSError`."""
        try:
            found = await addresses_of(host, port)
        except UnicodeError as error:
            raise OSError(f"cannot resolve {host}: {error}") from error
        for address in found:
            require_permitted(self._rule, self._scheme, host, address)
        resolved = [_resolved(host, port, address) for address in found]
        return [each for each in resolved if family in (socket.AF_UNSPEC, each["family"])]

    async def close(self) -> None:
        """Release nothing: there is nothing."""


def require_permitted(rule: AddressRule, scheme: str, host: str, address: Address) -> None:
    """Raise `AddressRefused` if delivery to `host` at this address is not allowed."""
    if (refusal := rule.refusal(scheme, host, address)) is not None:
        raise AddressRefused(refusal)


class HandlerClient:
    """POSTs to one URL. Nothing is followed, kept of cookies, or read from the environment.

    `tls`: replaces the context of the public authorities. Use it in one event loop only.
    """

    def __init__(self, url: httpx.URL, rule: AddressRule, at_once: int, tls: ssl.SSLContext | None = None) -> None:
        self._url = URL(str(url), encoded=True)
        self._host = url.host
        self._rule = rule
        self._refusal = _refusal_of_number(rule, url)
        self._at_once = at_once
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def post(self, headers: dict[str, str], body: bytes) -> aiohttp.ClientResponse:
        """Return the answer, of which only the head is read. Raises `AddressRefused`, `aiohttp.ClientError`."""
        if self._refusal is not None:
            raise AddressRefused(self._refusal)
        if self._session is None:
            self._session = self._open()
        try:
            return await self._session.post(self._url, headers=headers, data=body, allow_redirects=False)
        except aiohttp.InvalidURL as error:
            raise AddressRefused(f"{self._host} is no name, and no address as it is usually written") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._rule, self._url.scheme),
            use_dns_cache=False,
            limit=self._at_once,
            keepalive_timeout=KEPT_S,
            ssl=self._tls or ssl.create_default_context(cafile=certifi.where()),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,
            skip_auto_headers=OURS_ALONE,
        )


def _refusal_of_number(rule: AddressRule, url: httpx.URL) -> str | None:
    """Return why a host that is written as an address may not be delivered to: no resolver is asked for it."""
    try:
        address = ip_address(url.host)
    except ValueError:
        return None
    return rule.refusal(url.scheme, url.host, address)


def _resolved(host: str, port: int, address: Address) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
