"""The meaning of an HTTP status for a pass, unless the vendor has rules of its own.

    2xx                      the response can be read
    401, 403                 CredentialsRejected
    404, 410                 OptionsInvalid
    429                      RateLimited, with the time the vendor named
    408, 425, 5xx            ProviderUnavailable, with the time the vendor named
    any other                UnexpectedShape: redirects are not followed, and nothing is guessed

A network error never gets here: the engine turns it into `ProviderUnavailable`.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from httpx import codes

from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    ProviderUnavailable,
    RateLimited,
    UnexpectedShape,
)

LONGEST_WAIT = timedelta(hours=1)
"""The longest accepted `Retry-After`: one odd header must not stop a source for a day."""


def judge(response: httpx.Response, now: datetime) -> None:
    """Raise the error that says how to go on after `response`, or return if it is 2xx."""
    status = response.status_code
    if response.is_success:
        return
    message = f"{describe_request(response)} was answered with {status}"
    if status in (401, 403):
        raise CredentialsRejected(f"{message}; check that the key is live and may read this")
    if status in (404, 410):
        raise OptionsInvalid(f"{message}; check the address and the ids in the options")
    if status == codes.TOO_MANY_REQUESTS:
        raise RateLimited(message, retry_after=parse_retry_after(response, now))
    if status in (408, 425) or response.is_server_error:
        raise ProviderUnavailable(message, retry_after=parse_retry_after(response, now))
    raise UnexpectedShape("status", str(status), f"2xx for {describe_request(response)}")


def parse_retry_after(response: httpx.Response, now: datetime) -> timedelta | None:
    """Return the wait that `Retry-After` requests as seconds or an HTTP date, within `[0, LONGEST_WAIT]`.

    A date is reckoned from the response's own `Date`, or from `now` if it has none: our clocks may differ.
    None if there is no `Retry-After`, or one that is neither.
    Source: RFC 9110 sections 6.6.1 and 10.2.3, read November 2026.
    """
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), LONGEST_WAIT)
    at = parse_date(text)
    return None if at is None else min(max(at - (date_of(response) or now), timedelta(0)), LONGEST_WAIT)


def date_of(response: httpx.Response) -> datetime | None:
    """Return the time at which the response was made, from its header `Date`; None if it has none that is one."""
    return parse_date(response.headers.get("date", ""))


def parse_date(text: str) -> datetime | None:
    """Return the time of an HTTP date; None: `text` is none."""
    try:
        at = parsedate_to_datetime(text)
        return at if at.utcoffset() is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def waiting_until(until: datetime | None, now: datetime) -> datetime | None:
    """Return the end of a pause that the provider wants, or None if it is over.

    A time further ahead than any pause may be comes from a clock that was wrong, and counts as over.
    """
    return until if until is not None and now < until <= now + LONGEST_WAIT else None


def describe_request(response: httpx.Response) -> str:
    """Return method and address of the request of `response`."""
    try:
        request = response.request
    except RuntimeError:  # httpx: a response that was built by hand has no request
        return "the request"
    return f"{request.method} {describe_origin(request.url)}{request.url.path}"


def describe_origin(url: httpx.URL) -> str:
    """Return scheme, host and port, without user name, path and query, which may hold secrets and ids."""
    return str(url.copy_with(username=None, password=None, path="/", query=None, fragment=None)).rstrip("/")
