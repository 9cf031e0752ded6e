"""The requests that are left to us, as the usual headers of a response say.

    X-RateLimit-Limit, -Remaining, -Reset      and RateLimit-*, X-Rate-Limit-*: the same three names
    RateLimit: limit=100, remaining=50, reset=30      drafts 06 and 07 of the IETF
    RateLimit: "default";r=50;t=30                    drafts 08 and later; the limit is in RateLimit-Policy (q)

A reset is a number of seconds, a time since 1970 in seconds or milliseconds, or an HTTP date: vendors differ.
Source: draft-ietf-httpapi-ratelimit-headers 03 to 10, read 2026-11-27; the pages that the providers name.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from gapless_reconcilers.kit.contract import Quota
from gapless_reconcilers.kit.statuses import date_of, parse_date, parse_retry_after

FURTHEST: Final = timedelta(days=1)
"""The furthest reset that is believed: one odd header must not slow a source for longer."""
_PREFIXES: Final = ("x-ratelimit", "ratelimit", "x-rate-limit")
_MEMBER: Final = re.compile(r"\b(limit|remaining|reset|q|r|t)=(\d{1,15})\b")
_YEAR_2001: Final = 1_000_000_000
_MS: Final = 1000


def read_quota(response: httpx.Response, now: datetime) -> Quota | None:
    """Return what is left to us, as the headers of `response` say; None: they do not say so.

    A reset in seconds is reckoned from `now`, and so is a date, less the response's own `Date`: our clocks may differ.
    """
    for prefix in _PREFIXES:
        remaining = _number(response.headers.get(f"{prefix}-remaining", ""))
        if remaining is not None:
            limit, reset = (str(response.headers.get(f"{prefix}-{name}", "")) for name in ("limit", "reset"))
            return _quota(response, now, remaining, _number(limit.partition(",")[0]), reset)
    return _of_draft(response, now)


def _of_draft(response: httpx.Response, now: datetime) -> Quota | None:
    found: dict[str, str] = dict(_MEMBER.findall(response.headers.get("ratelimit", "").partition('",')[0]))
    policy: dict[str, str] = dict(_MEMBER.findall(response.headers.get("ratelimit-policy", "").partition(",")[0]))
    remaining = found.get("remaining", found.get("r"))
    if remaining is None:
        return None
    limit = _number(found.get("limit", policy.get("q", "")))
    return _quota(response, now, int(remaining), limit, found.get("reset", found.get("t", "")))


def _quota(response: httpx.Response, now: datetime, remaining: int, limit: int | None, reset: str) -> Quota | None:
    """Return the quota; without a reset that can be believed, `Retry-After` is one, if nothing is left."""
    wait = _wait(response, now, reset.strip())
    if wait is None and remaining == 0:
        wait = parse_retry_after(response, now)
    if wait is None or wait > FURTHEST:
        return None
    return Quota(remaining=remaining, limit=limit or None, resets_at=now + max(wait, timedelta(0)))


def _wait(response: httpx.Response, now: datetime, reset: str) -> timedelta | None:
    """Return the time until the reset."""
    number = _number(reset.partition(".")[0])
    if number is None:
        at = parse_date(reset)
    elif number < _YEAR_2001:
        return timedelta(seconds=min(number, _YEAR_2001))
    else:
        number_s = number / _MS if number > _YEAR_2001 * _MS else number
        at = datetime.fromtimestamp(number_s, UTC) if number_s < _YEAR_2001 * 9 else None
    return None if at is None else at - (date_of(response) or now)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None  # noqa: PLR2004
