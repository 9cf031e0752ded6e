"""Access decisions for every bind address, area and credential."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.console.auth import Access, AccessDecision, Area, Caller, decide_access, tells_of_proxy
from gapless_reconcilers.kit.contract import Secret

RUN, TOKEN, METRICS_TOKEN = "run-token", "the-token", "metrics-token"
ALLOWED, REQUIRED, HOST, ORIGIN = (
    AccessDecision.ALLOWED,
    AccessDecision.TOKEN_REQUIRED,
    AccessDecision.FOREIGN_HOST,
    AccessDecision.FOREIGN_ORIGIN,
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
        (LOOPBACK, LOCAL, None, ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK, "localhost:8001", None, ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK, "[::1]:8001", None, ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK, "rebound.example", None, ALLOWED, HOST, HOST, REQUIRED),
        (LOOPBACK, "127.0.0.1.rebound.example", None, ALLOWED, HOST, HOST, REQUIRED),
        (LOOPBACK, "user@127.0.0.1@rebound.example", None, ALLOWED, HOST, HOST, REQUIRED),
        (LOOPBACK, None, None, ALLOWED, HOST, HOST, REQUIRED),
        (LOOPBACK, LOCAL, bearer(RUN), ALLOWED, ALLOWED, ALLOWED, ALLOWED),
        (LOOPBACK, LOCAL, bearer("wrong"), ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK, LOCAL, bearer(""), ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK, LOCAL, "Basic ????", ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK, LOCAL, "Basic é", ALLOWED, ALLOWED, ALLOWED, REQUIRED),
        (LOOPBACK_TOKEN, LOCAL, None, ALLOWED, ALLOWED, REQUIRED, REQUIRED),
        (LOOPBACK_TOKEN, PUBLIC, bearer(TOKEN), ALLOWED, ALLOWED, ALLOWED, ALLOWED),
        (WIDE, PUBLIC, None, ALLOWED, ALLOWED, REQUIRED, REQUIRED),
        (WIDE, PUBLIC, bearer(TOKEN), ALLOWED, ALLOWED, ALLOWED, ALLOWED),
        (WIDE, PUBLIC, basic(TOKEN), ALLOWED, ALLOWED, ALLOWED, ALLOWED),
        (WIDE, PUBLIC, basic("wrong"), ALLOWED, ALLOWED, REQUIRED, REQUIRED),
        (WIDE, PUBLIC, bearer(RUN), ALLOWED, ALLOWED, ALLOWED, ALLOWED),
        (WIDE, LOCAL, None, ALLOWED, ALLOWED, REQUIRED, REQUIRED),
        (WIDE_METRICS, PUBLIC, None, ALLOWED, REQUIRED, REQUIRED, REQUIRED),
        (WIDE_METRICS, PUBLIC, bearer(METRICS_TOKEN), ALLOWED, ALLOWED, REQUIRED, REQUIRED),
        (WIDE_METRICS, PUBLIC, bearer(TOKEN), ALLOWED, ALLOWED, ALLOWED, ALLOWED),
    ],
)
def test_each_caller_gets_its_decision_in_each_area(
    access: Access,
    host: str | None,
    authorization: str | None,
    probe: AccessDecision,
    metrics: AccessDecision,
    read: AccessDecision,
    write: AccessDecision,
) -> None:
    caller = Caller(host=host, authorization=authorization)
    areas = (Area.PROBE, Area.METRICS, Area.READ, Area.WRITE, Area.RECEIPTS)
    assert [decide_access(access, area, caller) for area in areas] == [probe, metrics, read, write, write]


def test_the_token_of_a_handler_opens_receipts_and_nothing_else() -> None:
    access = replace(WIDE_METRICS, consumer_token=lambda: Secret("consumer-token"))
    caller = Caller(host=PUBLIC, authorization=bearer("consumer-token"))
    opened = {area for area in Area if decide_access(access, area, caller) is ALLOWED}
    assert opened == {Area.PROBE, Area.RECEIPTS}


@pytest.mark.parametrize(
    ("origin", "fetch_site", "decision"),
    [
        (None, None, ALLOWED),
        (f"http://{LOCAL}", "same-origin", ALLOWED),
        ("http://evil.example", None, ORIGIN),
        ("null", None, ORIGIN),
        ("http://[", None, ORIGIN),
        (None, "cross-site", ORIGIN),
        (None, "same-site", ORIGIN),
        (None, "none", ALLOWED),
    ],
)
def test_another_sites_page_changes_nothing_even_with_the_token(
    origin: str | None, fetch_site: str | None, decision: AccessDecision
) -> None:
    caller = Caller(host=LOCAL, origin=origin, fetch_site=fetch_site, authorization=basic(TOKEN))
    assert decide_access(LOOPBACK_TOKEN, Area.WRITE, caller) is decision


def test_binding_wider_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"private\.token_env"):
        Access(bind="10.0.0.5", run_token=Secret(RUN))


def test_a_token_that_vanishes_while_running_closes_access() -> None:
    tokens = [Secret(TOKEN)]
    access = Access(bind="10.0.0.5", run_token=Secret(RUN), token=lambda: tokens[0] if tokens else None)
    tokens.clear()
    assert decide_access(access, Area.READ, Caller(host=PUBLIC)) is REQUIRED


@pytest.mark.parametrize(
    ("access", "read", "metrics"),
    [(LOOPBACK, "THROUGH_PROXY", "THROUGH_PROXY"), (LOOPBACK_TOKEN, "TOKEN_REQUIRED", "THROUGH_PROXY")],
)
def test_what_came_through_a_proxy_needs_a_token_on_loopback(access: Access, read: str, metrics: str) -> None:
    caller = Caller(host=LOCAL, proxied=True)
    assert decide_access(access, Area.READ, caller).name == read
    assert decide_access(access, Area.METRICS, caller).name == metrics
    assert decide_access(access, Area.PROBE, caller) is ALLOWED
    assert decide_access(access, Area.READ, replace(caller, authorization=bearer(RUN))) is ALLOWED


@pytest.mark.parametrize("name", ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-anything"])
def test_headers_of_proxies_are_known(name: str) -> None:
    assert tells_of_proxy(["host", name])
    assert not tells_of_proxy(["host", "x-request-id"])


def test_a_listener_for_commands_opens_to_the_token_of_the_process_alone() -> None:
    access = replace(LOOPBACK_TOKEN, owner_only=True)
    for authorization, decision in ((None, REQUIRED), (bearer(TOKEN), REQUIRED), (bearer(RUN), ALLOWED)):
        caller = Caller(host=LOCAL, authorization=authorization)
        assert decide_access(access, Area.READ, caller) is decision


@given(st.text(), st.text(), st.text(), st.text())
def test_no_header_whatever_raises_or_opens_what_is_closed(
    host: str, origin: str, site: str, authorization: str
) -> None:
    caller = Caller(host=host, origin=origin, fetch_site=site, authorization=authorization)
    assert decide_access(WIDE, Area.READ, caller) is REQUIRED
    assert decide_access(LOOPBACK, Area.WRITE, caller) in (REQUIRED, ORIGIN)
    assert decide_access(LOOPBACK, Area.READ, caller) is not ORIGIN
