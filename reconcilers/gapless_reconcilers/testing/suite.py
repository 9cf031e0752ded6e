"""The contract that every provider keeps, as rules that a test can run.

    from gapless_reconcilers.testing import suite

    @suite.parametrize(Path("tests/fixtures"))
    def test_provider_keeps_the_contract(rule, scenario):
        rule(scenario)

Each rule takes a `Scenario` and raises `AssertionError` with a sentence. `testing.broken` has a provider
for each that breaks it and no other: a rule that cannot fail proves nothing.
"""

# ruff: noqa: S101 - assertions are what a contract suite is made of

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import (
    ConsumesEvents,
    Coverage,
    FetchesDetail,
    ListsEvents,
    NeedsEvidence,
    Provider,
    Remedy,
    RemoteEvent,
    Rendering,
    WebhookRequest,
    Window,
)
from gapless_reconcilers.kit.errors import (
    SignatureInvalid,
    UnexpectedShape,
    WebhookRefused,
)
from gapless_reconcilers.testing.answers import NO_PAGES, check_shape_is_never_guessed, check_statuses
from gapless_reconcilers.testing.probes import (
    details_of,
    flip,
    imported_modules,
    missing_of,
    raises,
    read_again,
    refusals,
    shape,
    signed_garbage,
    sources_of,
    unsigned_garbage,
    whole_events,
    with_body,
    without_header,
)
from gapless_reconcilers.testing.scenario import Expected, Scenario, answer, load_scenarios, make_response, read, walk

if TYPE_CHECKING:
    import pytest

Rule = Callable[[Scenario], None]

OTHER_SECRET = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXI="  # noqa: S105 - nobody's
IMPURE = frozenset(
    ("aiohttp", "asyncio", "gapless", "logging", "os", "requests", "socket", "subprocess", "threading", "time")
)
"""Modules that a provider has no business with: it has no clock, log, socket, environment or engine."""


def parametrize(fixtures: Path, kinds: Iterable[str] | None = None) -> "pytest.MarkDecorator":
    """A pytest mark that gives a test every `(rule, scenario)` of `kinds`, or of all known ones.

    Raises `FileNotFoundError` at collection for a kind that has no scenario in `fixtures/<kind>`.
    """
    import pytest  # noqa: PLC0415 - needed by tests alone

    scenarios = [one for kind in kinds or registry.kinds() for one in load_scenarios(fixtures / kind)]
    cases = [
        pytest.param(rule, scenario, id=f"{scenario.kind}-{scenario.name}-{name}")
        for scenario in scenarios
        for name, rule in rules_for(scenario).items()
    ]
    return pytest.mark.parametrize(("rule", "scenario"), cases)


def rules_for(scenario: Scenario) -> dict[str, Rule]:
    """The rules that concern the scenario's provider: those about lists only if it lists."""
    consumes = isinstance(scenario.provider(), ConsumesEvents)
    applies = dict.fromkeys(LIST_RULES, scenario.lists) | {"batches_are_acknowledged": consumes}
    return {name: rule for name, rule in RULES.items() if applies.get(name, True)}


def check_same_identity(scenario: Scenario) -> None:
    """The list recognises the webhook.

    Where it shows events: by the same key, type, object, and time if the webhook names one. Where it shows
    states: by the same object at the same version.
    """
    provider = scenario.provider()
    known = provider.capabilities
    listed = walk(scenario)
    for event in read(provider, scenario).events:
        if known.coverage is Coverage.RESOURCE_STATE:
            states = {(one.object_key, one.object_version) for one in listed}
            assert event.object_version is not None, f"{event.key} has no object_version"
            of_webhook = event.object_key, event.object_version
            assert of_webhook in states, f"the webhook's state {of_webhook} is none of the list's: {sorted(states)}"
            continue
        twin = next((one for one in listed if one.key == event.key), None)
        keys = sorted({one.key for one in listed})
        assert twin is not None, f"the webhook's key {event.key!r} is none of the list's: {keys}"
        of_webhook_, of_list = Expected.of(event), Expected.of(twin)
        if not known.exact_times:
            of_list = replace(of_list, occurred_at=of_webhook_.occurred_at)
        assert of_webhook_ == of_list, f"webhook {event} and list {twin} differ"


def check_same_stream(scenario: Scenario) -> None:
    """The webhook and the list name the same stream."""
    roads = {"webhook": list(read(scenario.provider(), scenario).events)}
    if scenario.lists:
        roads["list"] = walk(scenario)
    for road, events in roads.items():
        streams = {event.stream for event in events}
        assert streams == {scenario.stream}, f"the {road} names the streams {streams}; wanted {scenario.stream!r}"


def check_any_live_secret(scenario: Scenario) -> None:
    """A webhook signed with any of the configured secrets is accepted."""
    signed_with = scenario.signing_secret
    for secrets in ((signed_with,), (signed_with, OTHER_SECRET), (OTHER_SECRET, signed_with)):
        try:
            reply = read(scenario.provider(webhook_secrets=secrets), scenario)
        except WebhookRefused as error:
            place = secrets.index(signed_with) + 1
            raise AssertionError(f"refused although secret {place} of {len(secrets)} signed it: {error}") from error
        assert reply.events, "the webhook was accepted without an event"


def check_forgery_is_refused(scenario: Scenario) -> None:
    """A changed body, a wrong secret, a missing signature header and a stale time raise `SignatureInvalid`."""
    provider, webhook = scenario.provider(), scenario.webhook
    forged: list[tuple[str, Provider, WebhookRequest, timedelta]] = [
        ("signed with an unknown secret", scenario.provider(webhook_secrets=[OTHER_SECRET]), webhook, timedelta(0)),
        ("without any secret of ours", scenario.provider(webhook_secrets=[""]), webhook, timedelta(0)),
    ]
    places = range(0, len(webhook.body), max(1, len(webhook.body) // 40)) if provider.capabilities.signs_body else ()
    forged += [
        (f"with byte {at} changed", provider, with_body(webhook, flip(webhook.body, at)), timedelta(0)) for at in places
    ]
    forged += [
        (f"without {name}", provider, without_header(webhook, name), timedelta(0))
        for name in provider.capabilities.kept_headers
    ]
    if scenario.stale_after is not None:
        forged.append(("that is stale", provider, webhook, scenario.stale_after + timedelta(seconds=1)))
    for what, judge, request, later in forged:
        with raises(SignatureInvalid, f"a webhook {what}"):
            read(judge, scenario, request, scenario.now + later)


def check_garbage_is_refused(scenario: Scenario) -> None:
    """Whatever is sent, signed or not, is read or refused; nothing but `WebhookRefused` escapes."""
    provider = scenario.provider()
    for request in unsigned_garbage(provider, scenario):
        with raises(WebhookRefused, f"the body {request.body[:40]!r} with the headers {request.headers[-3:]!r:.200}"):
            read(provider, scenario, request)
    for request in signed_garbage(provider, scenario):
        try:
            read(provider, scenario, request)
        except WebhookRefused:
            continue
        except Exception as error:
            raise AssertionError(f"the signed body {request.body[:40]!r} raised {error!r}") from error


def check_evidence_is_allowed(scenario: Scenario) -> None:
    """Evidence is asked for by https, and only from hosts that the capabilities name."""
    provider = scenario.provider()
    asked = provider.read_webhook(scenario.webhook, scenario.now)
    if isinstance(asked, NeedsEvidence):
        url, known = asked.request.url, provider.capabilities
        assert known.may_fetch(url), f"evidence is asked from {url.host}; allowed: {known.evidence_hosts}"


def check_pages_give_expected(scenario: Scenario) -> None:
    """The walk gives exactly the expected events, in order, each payload byte for byte as listed."""
    events = walk(scenario)
    assert tuple(map(Expected.of, events)) == scenario.expected, f"got {events}; wanted {scenario.expected}"
    of_attempts = scenario.provider().capabilities.coverage is Coverage.DELIVERY_LOG
    assert of_attempts or len({event.key for event in events}) == len(events), "a key is listed twice"
    listed = b"\n".join(page.body for page in scenario.pages)
    for event in events:
        assert event.occurred_at.utcoffset() == timedelta(0), f"{event.key}: {event.occurred_at} is not UTC"
        assert bytes(event.payload) in listed, f"{event.key}: its payload is not as listed"


def check_detail_gives_event(scenario: Scenario) -> None:
    """What is asked for by itself is the event that was listed: same key, type, object and stream."""
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
    """What is handed out gives the expected events; its cursor asks for what comes behind; an empty batch has none."""
    provider = scenario.provider()
    assert isinstance(provider, ConsumesEvents)
    cursor: str | None = None
    events: list[RemoteEvent] = []
    asked = []
    for recorded in scenario.pages:
        request = provider.batch_request(cursor, timedelta(0))
        asked.append(shape(request))
        batch = provider.read_batch(answer(request, recorded), scenario.now)
        events += batch.events
        assert (batch.cursor is None) is (not batch.events), "an empty batch has no cursor, any other has one"
        cursor = batch.cursor
    assert cursor is None, "the last recorded batch is empty"
    assert len(set(asked)) == len(asked), f"a request repeats, so nothing was acknowledged: {asked}"
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
    asked = []
    for page in scenario.pages:
        assert request is not None, "the walk ended before the last page"
        asked.append(shape(request))
        request = provider.read_page(request, answer(request, page), scenario.stream, within).next
    assert request is None, f"the last page asks for another: {request.url}"
    assert len(set(asked)) == len(asked), f"a request repeats: {asked}"
    if len(scenario.pages) > 1:
        _check_repeating_list_is_refused(provider, scenario)


def _check_repeating_list_is_refused(provider: ListsEvents, scenario: Scenario) -> None:
    request: httpx.Request | None = provider.first_request(scenario.stream, scenario.window)
    with raises(UnexpectedShape, "a list that shows its first page for ever"):
        for _ in range(4):
            assert request is not None, "a page that promises more ended the walk"
            response = answer(request, scenario.pages[0])
            request = provider.read_page(request, response, scenario.stream, scenario.window).next


def check_window_is_kept(scenario: Scenario) -> None:
    """The first request has the wanted address; events at the window's start are kept, those at its end are not."""
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


def check_secrets_are_hidden(scenario: Scenario) -> None:
    """No secret is in a repr, an error, a budget's name or a request that the provider builds."""
    provider = scenario.provider()
    built: list[httpx.Request | None] = []
    if isinstance(provider, ListsEvents) and scenario.lists:
        request = provider.first_request(scenario.stream, scenario.window)
        page = provider.read_page(request, answer(request, scenario.pages[0]), scenario.stream, scenario.window)
        built = [request, page.next]
    shown = [repr(provider), repr(vars(provider)), repr(provider.auth()), provider.budget_scope()]
    shown += [f"{one.url} {one.headers.raw!r} {one.content!r}" for one in built if one is not None]
    shown += [str(error) for error in refusals(provider, scenario)]
    for name, secrets in scenario.secrets.items():
        for secret in secrets:
            assert not any(secret in text for text in shown), f"the secret {name} is shown by the provider"


def check_is_pure(scenario: Scenario) -> None:
    """No method is a coroutine, and the provider's modules import no clock, log, socket, environment or engine."""
    provider_type = type(scenario.provider())
    for name, member in inspect.getmembers(provider_type):
        is_async = inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        assert not is_async, f"{name} is a coroutine; a provider does no I/O"
    for name, source in sources_of(provider_type):
        impure = sorted(imported_modules(source) & IMPURE)
        assert not impure, f"{name} imports {', '.join(impure)}"


def check_rendering_is_accepted(scenario: Scenario) -> None:
    """An event that is rendered is accepted as a webhook of the same key, type, object and stream."""
    provider = scenario.provider()
    known = provider.capabilities
    for event in whole_events(scenario):
        again = read_again(provider, scenario, event)
        if not again:
            said = (Rendering.IMPOSSIBLE, Rendering.PUSHED)
            assert known.rendering in said, f"{event.key} cannot be rendered; said: {known.rendering}"
            continue
        wanted, got = Expected.of(event), [Expected.of(one) for one in again]
        if not known.exact_times:
            got = [replace(one, occurred_at=wanted.occurred_at) for one in got]
        assert got == [wanted], f"{event} was rendered as {again}"
        assert [one.stream for one in again] == [event.stream], f"{event} was rendered for another stream: {again}"


RULES: dict[str, Rule] = {
    "same_identity": check_same_identity,
    "same_stream": check_same_stream,
    "any_live_secret": check_any_live_secret,
    "forgery_is_refused": check_forgery_is_refused,
    "garbage_is_refused": check_garbage_is_refused,
    "evidence_is_allowed": check_evidence_is_allowed,
    "pages_give_expected": check_pages_give_expected,
    "detail_gives_event": check_detail_gives_event,
    "batches_are_acknowledged": check_batches_are_acknowledged,
    "walk_ends": check_walk_ends,
    "window_is_kept": check_window_is_kept,
    "statuses": check_statuses,
    "shape_is_never_guessed": check_shape_is_never_guessed,
    "secrets_are_hidden": check_secrets_are_hidden,
    "is_pure": check_is_pure,
    "rendering_is_accepted": check_rendering_is_accepted,
}
"""Every rule by its name. Through the engine and the store go the rules of `tests/`, not these."""
LIST_RULES = frozenset(
    (
        "same_identity",
        "pages_give_expected",
        "detail_gives_event",
        "walk_ends",
        "window_is_kept",
        "statuses",
        "shape_is_never_guessed",
    )
)
"""Those that need a list."""
