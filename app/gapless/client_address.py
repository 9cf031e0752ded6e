"""The address of the client behind trusted proxies, and whose it is as far as limits are concerned. Pure.

A header is believed only if the connection comes from a proxy that the configuration names, and only as far as each
entry was added by such a proxy: anybody can send a header.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

FORWARDED: Final = "forwarded"
"""The header of RFC 7239, whose entries are lists of pairs."""
UNKNOWN: Final = ""
"""The sender of what came from no address: a socket file, or a person who releases a webhook."""
SENDER_BITS: Final = 64
"""Bits of an IPv6 address that tell senders apart: who has one address has the rest of its network too."""
ENTRIES_MAX: Final = 32
"""Entries of the header that are looked at, from the last on. No chain of proxies is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxies:
    """The networks of the proxies, and the header in which they write the address of their client."""

    networks: tuple[Network, ...]
    header: str
    """In small letters: `x-forwarded-for`, `forwarded`, or one that holds a single address, such as `x-real-ip`."""


def client_address(
    peer: str | None, headers: Iterable[tuple[bytes, bytes]], trusted: TrustedProxies | None = None
) -> str:
    """Return the address of the client, in its shortest spelling; empty if there is none.

    `peer` is the address of the connection. If it is a trusted proxy, the header is read from its end: the first
    address that is no trusted proxy is the client. Where an entry is no address, the client is the proxy that wrote it.
    """
    found = parse_address(peer or "")
    if found is None:
        return ""
    if trusted is not None and is_in(found, trusted.networks):
        for entry in _entries(headers, trusted.header):
            address = parse_address(entry)
            if address is None:
                break
            found = address
            if not is_in(found, trusted.networks):
                break
    return str(found)


def sender_of(scope: Mapping[str, Any], trusted: TrustedProxies | None = None) -> str:
    """Return the sender of a request: the address of its client, of IPv6 the network; `UNKNOWN` if there is none."""
    peer = (scope.get("client") or ("",))[0]
    return sender_at(client_address(peer, scope.get("headers", ()), trusted))


def sender_at(client: str) -> str:
    """Return the sender at the address `client`: of IPv6 its network, `UNKNOWN` if it is no address."""
    address = parse_address(client)
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv6Address) and not address.is_loopback:
        return str(ip_network((address, SENDER_BITS), strict=False))
    return str(address)


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Return True if the address is in one of the networks."""
    return any(address.version == network.version and address in network for network in networks)


def parse_address(text: str) -> Address | None:
    """Return the address in `text`, with or without a port, brackets or a zone; None: it is none.

    An IPv4 address that is written as IPv6 is the IPv4 address.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _entries(headers: Iterable[tuple[bytes, bytes]], header: str) -> Iterator[str]:
    """Yield the entries of the header, the last one first. It may be repeated."""
    name = header.encode("latin-1")
    values = [value.decode("latin-1") for each, value in headers if each.lower() == name]
    entries: Sequence[str] = ",".join(values).rsplit(",", ENTRIES_MAX)[-ENTRIES_MAX:] if values else ()
    for entry in reversed(entries):
        yield _forwarded_for(entry) if header == FORWARDED else entry


def _forwarded_for(entry: str) -> str:
    """Return the value of `for` in an entry of `Forwarded`; empty if it has none."""
    for pair in entry.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value
    return ""
