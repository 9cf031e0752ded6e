"""Whose request it is, as far as limits are concerned: what one stranger may use up is not all that there is. Pure."""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

UNKNOWN: Final = ""
"""The sender of what came from no address: a socket file, or a person who releases a webhook."""
NETWORK_BITS: Final = 64
"""Bits of an IPv6 address that tell senders apart: who has one address has the rest of its network too."""


def sender_of(scope: Mapping[str, Any]) -> str:
    """Return the address that the request came from; of an IPv6 address its network."""
    client = scope.get("client")
    if not client:
        return UNKNOWN
    try:
        address = ip_address(client[0].partition("%")[0])
    except ValueError:
        return UNKNOWN
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, NETWORK_BITS), strict=False))
