"""Whose connection it is: the key under which connections of one client are counted. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gapless.connections.limits import Network

PREFIX = 64
"""Bits of an IPv6 address that tell clients apart: who has one address has the rest of its network too."""


def key_of(address: IPv4Address | IPv6Address) -> str:
    """Return the address, or of an IPv6 address its network; an IPv4 address inside IPv6 is itself."""
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((address, PREFIX), strict=False))


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in `text`, which may have brackets, a port or a zone; None if there is none."""
    host = text.strip().strip('"')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_proxy(address: IPv4Address | IPv6Address, proxies: Sequence[Network]) -> bool:
    """Return True if the peer is a named proxy."""
    own = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
    return any(own in network for network in proxies)


def named_client(headers: Iterable[tuple[bytes, bytes]], name: bytes, proxies: Sequence[Network]) -> str | None:
    """Return the key of the client that a trusted proxy names: the last address that is no proxy. None: it names none.

    What stands before that was written by the client itself.
    """
    values = b",".join(value for header, value in headers if header == name).decode("latin-1")
    for text in reversed(values.split(",")):
        address = parsed(text)
        if address is None:
            return None
        if not is_proxy(address, proxies):
            return key_of(address)
    return None
