"""The default meaning of statuses, and what is made of Retry-After."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    UnexpectedShape,
)
from gapless_reconcilers.kit.statuses import LONGEST_WAIT, judge, parse_retry_after

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
REQUEST = httpx.Request("GET", "https://api.example/v1/events?customer=cus_secret")


def respond(status: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, request=REQUEST)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_success_can_be_read(status: int) -> None:
    judge(respond(status), NOW)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [(401, CredentialsRejected), (403, CredentialsRejected), (404, OptionsInvalid), (410, OptionsInvalid)]
    + [(408, ProviderUnavailable), (425, ProviderUnavailable), (429, RateLimited)]
    + [(status, ProviderUnavailable) for status in (500, 502, 503, 504, 520, 599)]
    + [(status, UnexpectedShape) for status in (302, 304, 400, 402, 409, 418, 422)],
)
def test_refusal_raises_the_error_that_says_what_to_do(status: int, wanted: type[ProviderError]) -> None:
    with pytest.raises(wanted) as caught:
        judge(respond(status), NOW)
    assert type(caught.value) is wanted
    assert str(status) in str(caught.value)
    assert "cus_secret" not in str(caught.value)


def test_response_built_without_a_request_is_judged_all_the_same() -> None:
    with pytest.raises(RateLimited, match="the request was answered with 429"):
        judge(httpx.Response(429), NOW)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("7", timedelta(seconds=7)),
        (" 7 ", timedelta(seconds=7)),
        ("0", timedelta(0)),
        ("Fri, 20 Nov 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Fri, 20 Nov 2026 11:59:30 GMT", timedelta(0)),
        ("Fri, 20 Nov 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("9" * 5000, LONGEST_WAIT),
        ("86400", LONGEST_WAIT),
        ("Sun, 20 Nov 2096 12:00:00 GMT", LONGEST_WAIT),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_capped(text: str, wanted: timedelta | None) -> None:
    response = httpx.Response(429, headers=[(b"retry-after", text.encode("latin-1"))])
    assert parse_retry_after(response, NOW) == wanted


def test_absent_retry_after_is_none() -> None:
    assert parse_retry_after(respond(503), NOW) is None


@given(text=st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=50))
def test_any_retry_after_is_read_or_ignored(text: str) -> None:
    response = httpx.Response(429, headers=[(b"retry-after", text.encode("latin-1"))])
    wait = parse_retry_after(response, NOW)
    assert wait is None or timedelta(0) <= wait <= LONGEST_WAIT


def test_a_date_to_retry_after_is_reckoned_by_the_senders_clock() -> None:
    """Our clock may be an hour behind: then the wait would be an hour too long."""
    sent = {"date": "Fri, 20 Nov 2026 12:00:00 GMT", "retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}
    for ours in (NOW, NOW - timedelta(hours=1), NOW + timedelta(days=365)):
        assert parse_retry_after(httpx.Response(429, headers=sent), ours) == timedelta(seconds=30)
    without = httpx.Response(429, headers={"retry-after": sent["retry-after"]})
    assert parse_retry_after(without, datetime(2026, 11, 20, 12, tzinfo=UTC)) == timedelta(seconds=30)
