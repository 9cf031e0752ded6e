"""Which addresses may be delivered to: public ones, and those that the configuration names."""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

NAT64 = IPv6Network("64:ff9b::/96")
"""Carries an IPv4 address in its last 32 bits. Source: RFC 6052, read November 2026."""
ISATAP = frozenset((0x0000_5EFE, 0x0200_5EFE))
"""The third quarter of an address whose last one is an IPv4 address, under any prefix. Source: RFC 5214."""
NOT_PUBLIC = tuple(
    ip_network(each) for each in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "3fff::/20")
)
"""Not public, whatever Python says of them: Azure's platform, protocol assignments (Oracle Cloud's metadata is at
192.0.0.192), the 6to4 relay, NAT64 of the local network, documentation.

All other metadata addresses that are known (169.254.0.0/16, 100.100.100.200, fd00:ec2::254, fd20:ce::254) are private.
NV: the numbers of the clouds are not verified on their pages; the others are those of IANA's registries.
"""
HTTPS = "https"


class AddressRefused(Exception):
    """The host has an address to which delivery is not allowed."""


class AddressRule:
    """Permits public addresses and the named hosts, addresses and networks; with `allow_private`, every address.

    Plain http is permitted where it stays near, and to what is named: never to a public address by itself.
    """

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
        return self._allow_private or self._names(host, address) or is_public(address)

    def permits_plain(self, host: str, address: Address) -> bool:
        """Return True if delivery to `host` at this address may be in the open, without TLS."""
        return self._names(host, address) or not is_public(address)

    def refusal(self, scheme: str, host: str, address: Address) -> str | None:
        """Return why nothing is sent to `host` at this address; None: it is allowed."""
        if not self.permits(host, address):
            return f"{host} has the address {address}, which is not public; name it in allow if you mean it"
        if scheme != HTTPS and not self.permits_plain(host, address):
            what = f"{host} has the public address {address}, where {scheme} sends events in the open"
            return f"{what}; use https, or name it in allow if you mean it"
        return None

    def _names(self, host: str, address: Address) -> bool:
        is_named = host.lower().rstrip(".") in self._hosts
        return is_named or any(each in network for network in self._networks for each in (address, *carried(address)))


def carried(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 address inside an IPv6 address (mapped, 6to4, NAT64, ISATAP); empty: there is none."""
    if isinstance(address, IPv4Address):
        return ()
    number = int(address)
    if address in NAT64 or number >> 32 & 0xFFFF_FFFF in ISATAP:
        return (IPv4Address(number & 0xFFFF_FFFF),)
    inner = address.ipv4_mapped or address.sixtofour
    return (inner,) if inner else ()


def is_public(address: Address) -> bool:
    """Return True for an address of the public internet: not private, loopback, link-local, metadata or multicast.

    One that carries another is public if both are; a mapped address is the one that it carries.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address.is_site_local or address.teredo is not None or not all(map(is_public, carried(address))):
            return False
        if address in NAT64 or address.sixtofour:
            return True
    is_special = any(address in network for network in NOT_PUBLIC)
    return address.is_global and not (is_special or address.is_multicast or address.is_reserved)


async def addresses_of(host: str, port: int) -> list[Address]:
    """Return every address of the host, in the system's order of preference. Raises `OSError` and `UnicodeError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(text) for text in dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)]


async def address_problems(scheme: str, host: str, rule: AddressRule) -> list[str]:
    """Return the problem if `host` has no address, or those to which delivery is not allowed."""
    try:
        found = await addresses_of(host, 0)
    except (OSError, UnicodeError) as error:
        return [f"{host} has no address ({error}); its deliveries will wait until it has one"]
    refusals = (rule.refusal(scheme, host, each) for each in found)
    return [f"deliveries are refused: {each}" for each in refusals if each]
