"""Checks every address of a host before a delivery, and connects only to a checked address.

The host is resolved here, once per attempt, and the connection is made to the IP address, with the host's
name in `Host` and in TLS. So there is no second look-up that could return another address.
"""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

import httpx

Address: TypeAlias = IPv4Address | IPv6Address

NAT64 = IPv6Network("64:ff9b::/96")
"""Carries an IPv4 address in its last 32 bits. Source: RFC 6052, read November 2026."""


class AddressRefused(Exception):
    """The host has an address to which delivery is not allowed."""


class AddressRule:
    """Permits public addresses and the named hosts, addresses and networks; with `allow_private`, every address."""

    def __init__(self, allow: Iterable[str] = (), *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._hosts: set[str] = set()
        self._networks = []
        for named in allow:
            try:
                self._networks.append(ip_network(named.strip("[]"), strict=False))
            except ValueError:
                self._hosts.add(named.lower().rstrip("."))

    def permits(self, host: str, address: Address) -> bool:
        """Return True if delivery to `host` at this address is allowed."""
        if self._allow_private or host.lower().rstrip(".") in self._hosts:
            return True
        carried = carried_address(address)
        return is_public(carried) or any(carried in network or address in network for network in self._networks)


def carried_address(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 address (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: Address) -> bool:
    """Return True for an address of the public internet: not private, loopback, link-local, metadata or multicast."""
    if isinstance(address, IPv6Address) and (address.is_site_local or address.teredo is not None):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def addresses_of(host: str, port: int) -> list[Address]:
    """Return every address of the host, in the system's order of preference. Raises `OSError` and `UnicodeError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(text) for text in dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)]


async def address_problems(host: str, rule: AddressRule) -> list[str]:
    """Return the problem if `host` has no address, or one to which delivery is not allowed."""
    try:
        found = await addresses_of(host, 0)
    except (OSError, UnicodeError) as error:
        return [f"{host} has no address ({error}); its deliveries will wait until it has one"]
    refused = [str(each) for each in found if not rule.permits(host, each)]
    problem = f"{host} has the address {', '.join(refused)}, which is not public: deliveries to it are refused"
    return [f"{problem}; name it in allow if you mean it"] if refused else []


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends through `inner` to a checked IP address. Raises `AddressRefused` before any connection."""

    def __init__(self, rule: AddressRule, inner: httpx.AsyncBaseTransport) -> None:
        self._rule = rule
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the first address that accepts a connection."""
        host = request.url.raw_host.decode("ascii")
        addresses = await _resolve(request, host)
        for address in addresses:
            if not self._rule.permits(host, address):
                raise AddressRefused(
                    f"{host} has the address {address}, which is not public; name it in allow if you mean it"
                )
        return await self._first_that_connects(request, host, addresses)

    async def _first_that_connects(self, request: httpx.Request, host: str, addresses: list[Address]) -> httpx.Response:
        *others, last = addresses
        for address in others:
            try:
                return await self._inner.handle_async_request(_addressed(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_addressed(request, host, last))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def _resolve(request: httpx.Request, host: str) -> list[Address]:
    """Return every address of the request's host. Raises `httpx.ConnectError`."""
    try:
        return await addresses_of(host, request.url.port or 0)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"cannot resolve {host}: {error}", request=request) from error


def _addressed(request: httpx.Request, host: str, address: Address) -> httpx.Request:
    """Return the same request with the IP address in its URL. Its `Host` header is set already."""
    by_name = str(address) != host.strip("[]")
    extensions = {**request.extensions, "sni_hostname": host} if by_name else request.extensions
    url = request.url.copy_with(host=str(address))
    return httpx.Request(request.method, url, headers=request.headers, content=request.content, extensions=extensions)
