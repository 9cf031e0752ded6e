"""Contract rules about webhook and list together, and about the provider itself."""

# ruff: noqa: S101 - assertions are what a contract suite is made of
import inspect
from dataclasses import replace

import httpx

from gapless_reconcilers.kit.contract import Coverage, HasModes, ListsEvents
from gapless_reconcilers.testing.suite.hostile import imported_modules, refusals, sources_of
from gapless_reconcilers.testing.suite.scenario import Expected, Scenario, answer, read, walk

IMPURE = frozenset(
    ("aiohttp", "asyncio", "gapless", "logging", "os", "requests", "socket", "subprocess", "threading", "time")
)
"""Modules that a provider may not import: it has no clock, log, socket, environment or engine."""


def check_same_identity(scenario: Scenario) -> None:
    """The webhook's event is found in the list.

    A list of events has it with the same key, type and object, and the same time if the webhook names one. A list of
    states has the same object at the same version.
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
    origins = {"webhook": list(read(scenario.provider(), scenario).events)}
    if scenario.lists:
        origins["list"] = walk(scenario)
    for origin, events in origins.items():
        streams = {event.stream for event in events}
        assert streams == {scenario.stream}, f"the {origin} names the streams {streams}; wanted {scenario.stream!r}"


def check_modes_are_named(scenario: Scenario) -> None:
    """Where the vendor has modes, every event names its own, and the list shows those of the source's mode alone."""
    provider = scenario.provider()
    pushed = list(read(scenario.provider(), scenario).events)
    listed = walk(scenario) if scenario.lists else []
    if not isinstance(provider, HasModes):
        named = [event.key for event in (*pushed, *listed) if event.livemode is not None]
        assert not named, f"{named} name a mode, and the provider does not say which is this source's: see HasModes"
        return
    nameless = [event.key for event in (*pushed, *listed) if event.livemode is None]
    assert not nameless, f"{nameless} name no mode, and the vendor has modes"
    others = [event.key for event in listed if event.livemode is not provider.own_livemode()]
    assert not others, f"the list has {others}, which are of another mode than the source"


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
