"""The client behind trusted proxies, and what a stranger can make of it."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.client_address import TrustedProxies, client_address

PROXIES = TrustedProxies(networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")), header="x-forwarded-for")
FORWARDED = TrustedProxies(networks=PROXIES.networks, header="forwarded")
XFF = b"X-Forwarded-For"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", [(XFF, b"198.51.100.1")], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [(XFF, b"198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(XFF, b"192.0.2.6, 198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(XFF, b"192.0.2.6, 198.51.100.1, 10.9.9.9")], "198.51.100.1"),
        ("10.0.0.1", [(XFF, b"192.0.2.6"), (b"x-forwarded-for", b"198.51.100.1:4711")], "198.51.100.1"),
        ("10.0.0.1", [(XFF, b"192.0.2.6, unknown, 10.2.2.2")], "10.2.2.2"),
        ("10.0.0.1", [(XFF, b"10.0.0.8, 10.0.0.9")], "10.0.0.8"),
        ("::ffff:10.0.0.1", [(XFF, b"[2001:DB8:0::1]:443")], "2001:db8::1"),
        ("fd00::1", [(XFF, b"::ffff:198.51.100.1")], "198.51.100.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, [(XFF, b"198.51.100.1")], ""),
        ("a socket", [(XFF, b"198.51.100.1")], ""),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str | None, headers: list[tuple[bytes, bytes]], client: str
) -> None:
    assert client_address(peer, headers, PROXIES) == client


def test_forwarded_is_read_by_its_for() -> None:
    value = b'for=192.0.2.6;proto=https, by=10.0.0.2;For="[2001:db8::7]:4711", for=10.0.0.3'
    assert client_address("10.0.0.1", [(b"forwarded", value)], FORWARDED) == "2001:db8::7"
    assert client_address("10.0.0.1", [(b"forwarded", b"proto=https")], FORWARDED) == "10.0.0.1"


def test_without_trusted_proxies_no_header_is_believed() -> None:
    assert client_address("10.0.0.1", [(XFF, b"198.51.100.1")]) == "10.0.0.1"


@given(st.binary(), st.binary())
def test_a_stranger_is_never_taken_for_somebody_else(first: bytes, second: bytes) -> None:
    headers = [(XFF, first), (XFF, second)]
    assert client_address("203.0.113.9", headers, PROXIES) == "203.0.113.9"
    assert client_address("10.0.0.1", [*headers, (XFF, b"198.51.100.1")], PROXIES) == "198.51.100.1"
