"""Who gets in where: every bind, area and credential."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.console.auth import Access, AccessDecision, Area, Caller, decide_access
from gapless_reconcilers.kit.contract import Secret

RUN, TOKEN, METRICS_TOKEN = "run-token", "the-token", "metrics-token"
WELCOME, WANTED, HOST, ORIGIN = (
    AccessDecision.WELCOME,
    AccessDecision.TOKEN_WANTED,
    AccessDecision.STRANGE_HOST,
    AccessDecision.STRANGE_ORIGIN,
)


def bearer(token: str) -> str:
    return f"Bearer {token}"


def basic(token: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


LOOPBACK = Access(bind="127.0.0.1", run_token=Secret(RUN))
LOOPBACK_TOKEN = Access(bind="::1", run_token=Secret(RUN), token=lambda: Secret(TOKEN))
WIDE = Access(bind="10.0.0.5", run_token=Secret(RUN), token=lambda: Secret(TOKEN))
WIDE_METRICS = Access(
    bind="10.0.0.5", run_token=Secret(RUN), token=lambda: Secret(TOKEN), metrics_token=lambda: Secret(METRICS_TOKEN)
)
LOCAL = "127.0.0.1:8001"
PUBLIC = "gapless.internal:8001"


@pytest.mark.parametrize(
    ("access", "host", "authorization", "probe", "metrics", "read", "write"),
    [
        (LOOPBACK, LOCAL, None, WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK, "localhost:8001", None, WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK, "[::1]:8001", None, WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK, "rebound.example", None, WELCOME, HOST, HOST, WANTED),
        (LOOPBACK, "127.0.0.1.rebound.example", None, WELCOME, HOST, HOST, WANTED),
        (LOOPBACK, "user@127.0.0.1@rebound.example", None, WELCOME, HOST, HOST, WANTED),
        (LOOPBACK, None, None, WELCOME, HOST, HOST, WANTED),
        (LOOPBACK, LOCAL, bearer(RUN), WELCOME, WELCOME, WELCOME, WELCOME),
        (LOOPBACK, LOCAL, bearer("wrong"), WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK, LOCAL, bearer(""), WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK, LOCAL, "Basic ????", WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK, LOCAL, "Basic é", WELCOME, WELCOME, WELCOME, WANTED),
        (LOOPBACK_TOKEN, LOCAL, None, WELCOME, WELCOME, WANTED, WANTED),
        (LOOPBACK_TOKEN, PUBLIC, bearer(TOKEN), WELCOME, WELCOME, WELCOME, WELCOME),
        (WIDE, PUBLIC, None, WELCOME, WELCOME, WANTED, WANTED),
        (WIDE, PUBLIC, bearer(TOKEN), WELCOME, WELCOME, WELCOME, WELCOME),
        (WIDE, PUBLIC, basic(TOKEN), WELCOME, WELCOME, WELCOME, WELCOME),
        (WIDE, PUBLIC, basic("wrong"), WELCOME, WELCOME, WANTED, WANTED),
        (WIDE, PUBLIC, bearer(RUN), WELCOME, WELCOME, WELCOME, WELCOME),
        (WIDE, LOCAL, None, WELCOME, WELCOME, WANTED, WANTED),
        (WIDE_METRICS, PUBLIC, None, WELCOME, WANTED, WANTED, WANTED),
        (WIDE_METRICS, PUBLIC, bearer(METRICS_TOKEN), WELCOME, WELCOME, WANTED, WANTED),
        (WIDE_METRICS, PUBLIC, bearer(TOKEN), WELCOME, WELCOME, WELCOME, WELCOME),
    ],
)
def test_the_matrix_of_who_gets_in_where(
    access: Access,
    host: str | None,
    authorization: str | None,
    probe: AccessDecision,
    metrics: AccessDecision,
    read: AccessDecision,
    write: AccessDecision,
) -> None:
    caller = Caller(host=host, authorization=authorization)
    assert [decide_access(access, area, caller) for area in Area] == [probe, metrics, read, write]


@pytest.mark.parametrize(
    ("origin", "fetch_site", "verdict"),
    [
        (None, None, WELCOME),
        (f"http://{LOCAL}", "same-origin", WELCOME),
        ("http://evil.example", None, ORIGIN),
        ("null", None, ORIGIN),
        ("http://[", None, ORIGIN),
        (None, "cross-site", ORIGIN),
        (None, "same-site", ORIGIN),
        (None, "none", WELCOME),
    ],
)
def test_another_sites_page_changes_nothing_even_with_the_token(
    origin: str | None, fetch_site: str | None, verdict: AccessDecision
) -> None:
    caller = Caller(host=LOCAL, origin=origin, fetch_site=fetch_site, authorization=basic(TOKEN))
    assert decide_access(LOOPBACK_TOKEN, Area.WRITE, caller) is verdict


def test_binding_wider_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"private\.token_env"):
        Access(bind="10.0.0.5", run_token=Secret(RUN))


def test_a_token_that_vanishes_while_running_closes_the_door() -> None:
    tokens = [Secret(TOKEN)]
    access = Access(bind="10.0.0.5", run_token=Secret(RUN), token=lambda: tokens[0] if tokens else None)
    tokens.clear()
    assert decide_access(access, Area.READ, Caller(host=PUBLIC)) is WANTED


@given(st.text(), st.text(), st.text(), st.text())
def test_no_header_whatever_raises_or_opens_what_is_closed(
    host: str, origin: str, site: str, authorization: str
) -> None:
    caller = Caller(host=host, origin=origin, fetch_site=site, authorization=authorization)
    assert decide_access(WIDE, Area.READ, caller) is WANTED
    assert decide_access(LOOPBACK, Area.WRITE, caller) in (WANTED, ORIGIN)
    assert decide_access(LOOPBACK, Area.READ, caller) is not ORIGIN
