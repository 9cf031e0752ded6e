"""How many connections there may be, whose they are, and how many lines the server library may write."""

import logging
from ipaddress import ip_network

import pytest

from gapless.client_address import TrustedProxies, sender_at
from gapless.connections.limits import LEAST, ConnectionLimits, share_descriptors
from gapless.connections.quiet import LINES_KNOWN, OncePerMinute
from gapless.connections.register import Connections
from gapless.metrics import Metrics

PROXIES = TrustedProxies(networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")), header="x-forwarded-for")


def behind_proxies() -> Connections:
    return Connections("public", Metrics("test"), ConnectionLimits(trusted=PROXIES))


@pytest.mark.parametrize(
    ("descriptors", "shared"),
    [(None, (2000, 100)), (1024, (764, 100)), (65_536, (2000, 100)), (400, (180, 60)), (64, (LEAST, LEAST))],
)
def test_listeners_share_what_descriptors_are_left(descriptors: int | None, shared: tuple[int, int]) -> None:
    assert share_descriptors(descriptors, own=160, public=2000, private=100) == shared


def test_one_address_never_has_all_connections() -> None:
    assert ConnectionLimits(most=100, per_address=500).most_of_one_address == 75
    assert ConnectionLimits(most=1000, per_address=500).most_of_one_address == 500


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ('"[2001:db8:1:2::9]:443"', "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_address_is_counted_with_its_network(text: str, key: str) -> None:
    assert sender_at(text) == key


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([b"203.0.113.7"], "203.0.113.7"),
        ([b"6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ([b"203.0.113.7, 10.1.1.1", b"fd00::1"], "203.0.113.7"),
        ([b"203.0.113.7, unknown"], None),
        ([b"10.1.1.1"], None),
        ([b"\xff"], None),
        ([], None),
    ],
)
def test_a_proxy_names_the_last_address_that_is_none(values: list[bytes], client: str | None) -> None:
    headers = [(b"x-forwarded-for", value) for value in values]
    assert behind_proxies().named_by("10.9.9.9", [(b"host", b"1.1.1.1"), *headers]) == client


def test_a_proxy_is_known_by_its_mapped_address_too() -> None:
    connections = behind_proxies()
    assert [connections.is_proxy(each) for each in ("::ffff:10.1.1.1", "11.1.1.1", None)] == [True, False, False]


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.WARNING, __file__, 1, message, None, None)


def test_the_same_line_comes_once_a_minute_with_its_count() -> None:
    now = [0.0]
    once = OncePerMinute(lambda: now[0])
    assert [once.filter(record("again")) for _ in range(1000)] == [True] + [False] * 999
    assert once.filter(record("another\nwith more"))
    now[0] = 61
    line = record("again")
    assert once.filter(line)
    assert vars(line)["count"] == 1000


def test_ever_new_lines_are_bounded_too() -> None:
    once = OncePerMinute(lambda: 0.0)
    assert sum(once.filter(record(f"line {number}")) for number in range(10 * LINES_KNOWN)) == LINES_KNOWN + 1
