"""Whose request it is, as far as limits are concerned: what one stranger may use up is not all that there is. Pure."""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_network
from typing import Any, Final

from gapless.receive.client_address import TrustedProxies, client_address, parse_address

UNKNOWN: Final = ""
"""The sender of what came from no address: a socket file, or a person who releases a webhook."""
NETWORK_BITS: Final = 64
"""Bits of an IPv6 address that tell senders apart: who has one address has the rest of its network too."""


def sender_of(scope: Mapping[str, Any], trusted: TrustedProxies | None = None) -> str:
    """Return the address that the request came from, behind trusted proxies the client's; of IPv6 its network."""
    peer = (scope.get("client") or ("",))[0]
    return sender_at(client_address(peer, scope.get("headers", ()), trusted))


def sender_at(client: str) -> str:
    """Return the sender at the address `client`: of IPv6 its network, `UNKNOWN` if it is no address."""
    address = parse_address(client)
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv6Address) and not address.is_loopback:
        return str(ip_network((address, NETWORK_BITS), strict=False))
    return str(address)
