"""Contract rules about lists, details and batches."""

# ruff: noqa: S101 - assertions are what a contract suite is made of
import json
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime

import httpx

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    ConsumesEvents,
    Coverage,
    FetchesDetail,
    JudgesResponses,
    ListsEvents,
    ListsFromOtherCuts,
    Provider,
    Reading,
    Remedy,
    RemoteEvent,
    ShowsGrant,
    ShowsQuota,
    Window,
)
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    NeedsOperator,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Retryable,
    UnexpectedShape,
)
from gapless_reconcilers.testing.suite.hostile import (
    details_of,
    missing_of,
    raises,
    rename,
    shape,
    with_odd_fields,
    with_row,
)
from gapless_reconcilers.testing.suite.scenario import Expected, Scenario, answer, make_response, walk


def check_pages_give_expected(scenario: Scenario) -> None:
    """The walk returns exactly the expected events, in order, each payload byte for byte as listed.

    It may also be listed as a text, if the page has the body of a webhook so.
    """
    events = walk(scenario)
    assert tuple(map(Expected.of, events)) == scenario.expected, f"got {events}; wanted {scenario.expected}"
    of_attempts = scenario.provider().capabilities.coverage is Coverage.DELIVERY_LOG
    assert of_attempts or len({event.key for event in events}) == len(events), "a key is listed twice"
    listed = b"\n".join(page.body for page in scenario.pages)
    for event in events:
        assert event.occurred_at.utcoffset() == timedelta(0), f"{event.key}: {event.occurred_at} is not UTC"
        is_there = bytes(event.payload) in listed or _is_text_in(listed, bytes(event.payload))
        assert is_there, f"{event.key}: its payload is not as listed"


def _is_text_in(listed: bytes, payload: bytes) -> bool:
    text = payload.decode(errors="replace")
    return any(json.dumps(text, ensure_ascii=is_ascii).encode() in listed for is_ascii in (True, False))


def check_detail_gives_event(scenario: Scenario) -> None:
    """A fetched event is the listed one: same key, type, object and stream."""
    provider, remedy = scenario.provider(), scenario.provider().capabilities.remedy
    if not isinstance(provider, FetchesDetail) or not scenario.details:
        assert remedy is not Remedy.DETAIL, "the capabilities say that detail brings events back; nothing shows it"
        return
    for listed, body in details_of(scenario):
        missing = missing_of(listed)
        request = provider.detail_request(missing)
        event = provider.read_detail(missing, make_response(request, body))
        for name in ("key", "type", "object_key", "stream"):
            got, wanted = getattr(event, name), getattr(listed, name)
            assert got == wanted, f"the detail of {listed.key} has the {name} {got!r}; wanted {wanted!r}"


def check_batches_are_acknowledged(scenario: Scenario) -> None:
    """The batches have the expected events; a cursor requests the events after its batch; an empty batch has none."""
    provider = scenario.provider()
    assert isinstance(provider, ConsumesEvents)
    cursor: str | None = None
    events: list[RemoteEvent] = []
    requests = []
    for recorded in scenario.pages:
        request = provider.batch_request(cursor, timedelta(0))
        requests.append(shape(request))
        batch = provider.read_batch(answer(request, recorded), scenario.now)
        events += batch.events
        assert (batch.cursor is None) is (not batch.events), "an empty batch has no cursor, any other has one"
        cursor = batch.cursor
    assert cursor is None, "the last recorded batch is empty"
    assert len(set(requests)) == len(requests), f"a request repeats, so nothing was acknowledged: {requests}"
    assert tuple(map(Expected.of, events)) == scenario.expected, f"got {events}; wanted {scenario.expected}"
    for body in NO_PAGES:
        with raises(UnexpectedShape, f"the body {body!r}"):
            request = provider.batch_request(None, timedelta(0))
            provider.read_batch(make_response(request, body), scenario.now)


def check_walk_ends(scenario: Scenario) -> None:
    """Same input, same request; no request repeats; the last page ends the walk; a list that repeats is refused."""
    provider, within = scenario.lister(), scenario.window
    request: httpx.Request | None = provider.first_request(scenario.stream, within)
    assert request is not None
    assert shape(request) == shape(provider.first_request(scenario.stream, within)), "two first requests differ"
    requests = []
    for page in scenario.pages:
        assert request is not None, "the walk ended before the last page"
        requests.append(shape(request))
        request = provider.read_page(request, answer(request, page), scenario.stream, within).next
    assert request is None, f"the last page asks for another: {request.url}"
    assert len(set(requests)) == len(requests), f"a request repeats: {requests}"
    if len(scenario.pages) > 1:
        _check_repeating_list_is_refused(provider, scenario)


def _check_repeating_list_is_refused(provider: ListsEvents, scenario: Scenario) -> None:
    request: httpx.Request | None = provider.first_request(scenario.stream, scenario.window)
    with raises(UnexpectedShape, "a list that shows its first page for ever"):
        for _ in range(4):
            assert request is not None, "a page that promises more ended the walk"
            response = answer(request, scenario.pages[0])
            request = provider.read_page(request, response, scenario.stream, scenario.window).next


def check_walk_passes_old_rows(scenario: Scenario) -> None:
    """A walk ends at a page that lies before the window as a whole, by the grace, and at no other."""
    capabilities, pages = scenario.provider().capabilities, scenario.pages
    if capabilities.reading is not Reading.WALK or len(pages) < 2:  # noqa: PLR2004 - the last page ends any walk
        return
    newest, oldest = _extent(scenario)
    assert oldest < newest, "the first page of a walk needs rows of at least two times"
    unit = capabilities.resolution
    for start, what in (
        (newest, "one old row among newer ones ends the walk"),
        (newest + min(unit, capabilities.grace), "a page that lies only just before the window ends the walk"),
    ):
        assert _following(scenario, start) is not None, what
    beyond = newest + capabilities.grace + unit
    assert _following(scenario, beyond) is None, (
        "the walk goes on below a page that lies before the window by the grace"
    )


def _extent(scenario: Scenario) -> tuple[datetime, datetime]:
    """Return the times of the newest and the oldest row of the first page."""
    provider, everything = scenario.lister(), Window(start=EARLIEST, end=LATEST)
    request = provider.first_request(scenario.stream, everything)
    page = provider.read_page(request, answer(request, scenario.pages[0]), scenario.stream, everything)
    times = [event.occurred_at for event in page.events]
    return max(times), min(times)


def _following(scenario: Scenario, start: datetime) -> httpx.Request | None:
    """Return the request after the first page, for a window that begins at `start`."""
    provider, within = scenario.lister(), Window(start=start, end=start + timedelta(days=1))
    request = provider.first_request(scenario.stream, within)
    return provider.read_page(request, answer(request, scenario.pages[0]), scenario.stream, within).next


def check_other_cuts_differ(scenario: Scenario) -> None:
    """Other requests for the same events go to the list's address, differ from the usual one, and can be read."""
    provider, within = scenario.lister(), scenario.window
    if not isinstance(provider, ListsFromOtherCuts):
        return
    usual = provider.first_request(scenario.stream, within)
    others = list(provider.other_requests(scenario.stream, within))
    shapes = [shape(request) for request in (usual, *others)]
    assert len(set(shapes)) == len(shapes), f"another cut is a request that was made already: {shapes}"
    for other in others:
        assert other.url.copy_with(query=None) == usual.url.copy_with(query=None), f"{other.url} is not the list"
        kept, wanted = (
            provider.read_page(request, answer(request, scenario.pages[0]), scenario.stream, within).events
            for request in (other, usual)
        )
        assert kept == wanted, f"read from {other.url} the same page has {kept}; wanted {wanted}"


def check_grant_is_listed(scenario: Scenario) -> None:
    """If the grant depends on events, their list is another request than the usual one, and its pages keep to them."""
    provider, within, grant = scenario.lister(), scenario.window, scenario.provider().capabilities.grant
    if not isinstance(provider, ShowsGrant):
        return
    assert grant is not None, "the events that earn requests can be listed, and the capabilities have no grant"
    assert grant.per_event, "the events that earn requests can be listed, and the grant has no requests for them"
    first, usual = provider.grant_request(scenario.stream, within), provider.first_request(scenario.stream, within)
    assert shape(first) == shape(provider.grant_request(scenario.stream, within)), "two first requests differ"
    following = [
        provider.read_page(request, answer(request, scenario.pages[0]), scenario.stream, within).next
        for request in (first, usual)
    ]
    for ours, others in zip((first, following[0]), (usual, following[1]), strict=True):
        if ours is None or others is None:
            continue
        assert shape(ours) != shape(others), f"{ours.url} lists all events; wanted those of {grant.types}"
        asked = f"{ours.url.query!r} {ours.content!r}"
        assert all(each in asked for each in grant.types), f"{ours.url} does not name {grant.types}"


def check_quota_is_read_from_anything(scenario: Scenario) -> None:
    """Where the vendor has a way of its own to say what is left, no response keeps it from being read."""
    provider = scenario.provider()
    if not isinstance(provider, ShowsQuota):
        return
    for body in (*NO_PAGES, *(page.body for page in scenario.pages)):
        response = make_response(httpx.Request("GET", "https://vendor.example/"), body)
        try:
            provider.read_quota(response, scenario.now)
        except Exception as error:
            raise AssertionError(f"the body {body[:60]!r} raises {error!r}; wanted a quota or None") from error


def check_window_is_kept(scenario: Scenario) -> None:
    """The first request has the expected address; events at the window's start are kept, those at its end are not."""
    request = scenario.lister().first_request(scenario.stream, scenario.window)
    url, wanted = request.url, httpx.URL(scenario.first_url)
    assert url.copy_with(query=None) == wanted.copy_with(query=None), f"asked {url}; wanted {wanted}"
    assert sorted(url.params.multi_items()) == sorted(wanted.params.multi_items()), f"asked {url}; wanted {wanted}"
    if scenario.first_json is not None:
        sent = json.loads(request.content)
        assert sent == scenario.first_json, f"sent {sent}; wanted {scenario.first_json}"
    everything = walk(scenario)
    times = sorted({event.occurred_at for event in everything})
    assert len(times) > 1, "the scenario needs events of at least two times"
    narrow = Window(start=times[0], end=times[-1])
    kept = [event.key for event in walk(scenario, narrow)]
    wanted_keys = [event.key for event in everything if event.occurred_at in narrow]
    assert kept == wanted_keys, f"of [{narrow.start}, {narrow.end}) {kept} were kept; wanted {wanted_keys}"


def check_odd_row_is_set_aside(scenario: Scenario) -> None:
    """A row that cannot be read is kept byte for byte. The events of its page are read, and the walk goes on."""
    provider, odd = scenario.lister(), b'{"gapless":"odd"}'
    for recorded in scenario.pages:
        request = provider.first_request(scenario.stream, scenario.window)
        whole = provider.read_page(request, answer(request, recorded), scenario.stream, scenario.window)
        if whole.rows == 0:
            continue  # the end of the list is told by there being no row
        wanted = [event.key for event in whole.events]
        for at_end in (False, True):
            page = replace(recorded, body=with_row(recorded.body, scenario.records, odd, at_end=at_end))
            try:
                read = provider.read_page(request, answer(request, page), scenario.stream, scenario.window)
            except UnexpectedShape as error:
                raise AssertionError(f"one odd row keeps a page from being read: {error}") from error
            kept = [bytes(row.row) for row in read.unreadable]
            assert kept == [odd], f"the odd row {odd!r} is not set aside: {kept}"
            assert [event.key for event in read.events] == wanted, "an odd row changes the events of its page"
            assert (read.next is None) is (whole.next is None), "an odd row ends the walk, or prolongs it"


def check_odd_field_is_unread(scenario: Scenario) -> None:
    """A row with a lone surrogate and deep nesting in a field that nobody reads is read like any other."""
    provider = scenario.lister()
    for recorded in scenario.pages:
        request = provider.first_request(scenario.stream, scenario.window)
        whole = provider.read_page(request, answer(request, recorded), scenario.stream, scenario.window)
        page = replace(recorded, body=with_odd_fields(recorded.body, scenario.records))
        try:
            read = provider.read_page(request, answer(request, page), scenario.stream, scenario.window)
        except UnexpectedShape as error:
            raise AssertionError(f"a field that nobody needs keeps a page from being read: {error}") from error
        assert not read.unreadable, f"a field that nobody needs makes a row unreadable: {read.unreadable[0].problem}"
        got, wanted = list(map(Expected.of, read.events)), list(map(Expected.of, whole.events))
        assert got == wanted, f"a field that nobody needs changes the events: {got}; wanted {wanted}"


NO_PAGES = (b"<html>maintenance</html>", b"", b"[]", b"null")
"""Bodies that are not a page, for lists whose page is an object."""


def check_statuses(scenario: Scenario) -> None:
    """Each refusal raises the error that says how to go on, with the wait that the vendor named."""
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
    """A response of another shape raises `UnexpectedShape` naming the field, and is never an empty page."""
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
