"""Which addresses may be delivered to: public ones, and those that the configuration names."""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

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
