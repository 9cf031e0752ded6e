"""Rules of the contract about answers that are no pages: refusals, and answers of another shape."""

# ruff: noqa: S101 - assertions are what a contract suite is made of

from datetime import timedelta
from email.utils import format_datetime

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import JudgesResponses, Provider
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    NeedsOperator,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Retryable,
    UnexpectedShape,
)
from gapless_reconcilers.testing.suite.hostile import raises, rename
from gapless_reconcilers.testing.suite.scenario import Scenario, make_response

NO_PAGES = (b"<html>maintenance</html>", b"", b"[]", b"null")
"""Answers that are no page where a page is an object."""


def check_statuses(scenario: Scenario) -> None:
    """Each refusal raises the error that says what to do, with the wait that the vendor named."""
    provider, now = scenario.provider(), scenario.now
    date = format_datetime(now + timedelta(seconds=7), usegmt=True)
    _check_status(provider, scenario, 200, None)
    for status in (401, 403):
        _check_status(provider, scenario, status, CredentialsRejected)
    _check_status(provider, scenario, 404, NeedsOperator)
    for status in (408, 500, 502, 503, 504):
        _check_status(provider, scenario, status, ProviderUnavailable)
    _check_status(provider, scenario, 429, RateLimited)
    for text in ("7", date):
        _check_status(provider, scenario, 429, RateLimited, retry_after=text)
    for status in (302, 418):
        _check_status(provider, scenario, status, UnexpectedShape)


def _check_status(
    provider: Provider, scenario: Scenario, status: int, wanted: type[ProviderError] | None, **headers: str
) -> None:
    request = scenario.lister().first_request(scenario.stream, scenario.window)
    response = make_response(request, b"<html>refused</html>", status, **headers)
    judge = provider.judge if isinstance(provider, JudgesResponses) else statuses.judge
    raised: Exception | None = None
    try:
        judge(response, scenario.now)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared below
        raised = error
    fits = raised is None if wanted is None else isinstance(raised, wanted)
    assert fits, f"status {status} raised {raised!r}; wanted {wanted.__name__ if wanted else 'nothing'}"
    if headers and isinstance(raised, Retryable):
        wait = raised.retry_after
        assert wait == timedelta(seconds=7), f"Retry-After {headers['retry_after']!r} was read as {wait}; wanted 7 s"


def check_shape_is_never_guessed(scenario: Scenario) -> None:
    """An answer of another shape raises `UnexpectedShape` naming the field, and is never an empty page."""
    provider = scenario.lister()
    request = provider.first_request(scenario.stream, scenario.window)
    for body in (b"<html>maintenance</html>", b"", b"{}", b"null") if not scenario.records else NO_PAGES:
        with raises(UnexpectedShape, f"the body {body!r}"):
            provider.read_page(request, make_response(request, body), scenario.stream, scenario.window)
    renamed = make_response(request, rename(scenario.pages[0].body, scenario.records))
    try:
        page = provider.read_page(request, renamed, scenario.stream, scenario.window)
    except UnexpectedShape as error:
        assert scenario.records in error.path, f"path is {error.path!r}; wanted {scenario.records!r}"  # noqa: PT017
    else:
        raise AssertionError(f"a page without {scenario.records!r} was read as {len(page.events)} events")
