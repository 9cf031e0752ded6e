"""Contract rules about webhooks."""

# ruff: noqa: S101 - assertions are what a contract suite is made of
from dataclasses import replace
from datetime import timedelta

import msgspec

from gapless_reconcilers.kit.contract import NeedsEvidence, Provider, Rendering, WebhookRequest
from gapless_reconcilers.kit.errors import SignatureInvalid, WebhookRefused
from gapless_reconcilers.testing.suite.hostile import (
    flip,
    raises,
    read_again,
    recorded,
    render,
    signed_garbage,
    unsigned_garbage,
    whole_events,
    with_body,
    without_header,
)
from gapless_reconcilers.testing.suite.scenario import Expected, Scenario, read

OTHER_SECRET = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXI="  # noqa: S105 - nobody's


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
        for name in provider.capabilities.needed_headers
    ]
    if scenario.stale_after is not None:
        forged.append(("that is stale", provider, webhook, scenario.stale_after + timedelta(seconds=1)))
    for what, judge, request, later in forged:
        with raises(SignatureInvalid, f"a webhook {what}"):
            read(judge, scenario, request, scenario.now + later)


def check_fits_limit(scenario: Scenario) -> None:
    """The webhook is no longer than the provider says that the vendor's can be."""
    most, found = scenario.provider().capabilities.body_bytes, len(scenario.webhook.body)
    assert most is None or found <= most, f"the webhook has {found} bytes; body_bytes says at most {most}"


def check_garbage_is_refused(scenario: Scenario) -> None:
    """Garbage, signed or not, is read or refused; no error but `WebhookRefused` escapes."""
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


def check_methods_carry_no_events(scenario: Scenario) -> None:
    """The vendor's events come by POST: the same by another method records none."""
    provider = scenario.provider()
    for method in provider.capabilities.methods:
        if method == "POST":
            continue
        try:
            reply = read(provider, scenario, msgspec.structs.replace(scenario.webhook, method=method))
        except WebhookRefused:
            continue
        assert not reply.events, f"{method} carries {len(reply.events)} events; a link that is followed records them"


def check_refusals_are_the_vendors(scenario: Scenario) -> None:
    """The statuses with which a webhook may be refused are 4xx: no sender is told that the fault is ours."""
    statuses = scenario.provider().capabilities.refusal_statuses
    odd = [status for status in statuses if not 400 <= status < 500]  # noqa: PLR2004 - the refusals of HTTP
    assert not odd, f"refusal_statuses has {odd}; wanted statuses from 400 to 499"


def check_handshakes_are_answered(scenario: Scenario) -> None:
    """Each request that proves our endpoint gets the documented answer; a signed one with another secret is refused."""
    provider = scenario.provider()
    for wanted in scenario.handshakes:
        request, what = wanted.request, f"{wanted.request.method} ?{wanted.request.query.decode()}"
        assert request.method in provider.capabilities.methods, f"{what} does not reach the provider"
        reply = read(provider, scenario, request)
        assert not reply.events, f"{what} records {reply.events}"
        got = reply.answer
        assert (got.status, got.body) == (wanted.status, wanted.body), f"{what} is answered {got}; wanted {wanted}"
        headers = {name.lower(): value for name, value in got.headers} | {"content-type": got.content_type}
        for name, value in wanted.headers.items():
            assert headers.get(name.lower()) == value, f"{what} is answered with {headers}; wanted {name}: {value}"
        if wanted.is_signed:
            with raises(SignatureInvalid, f"{what} without any secret of ours"):
                read(scenario.provider(webhook_secrets=[OTHER_SECRET]), scenario, request)


def check_secrets_are_offered_in_handshakes(scenario: Scenario) -> None:
    """A secret that the vendor chooses comes in its handshake alone, whole, and only if the capabilities say so."""
    provider = scenario.provider()
    reply = read(provider, scenario)
    assert reply.offers is None, "a webhook with events offers a secret: an operator would be shown what anybody sends"
    offered = [read(provider, scenario, wanted.request).offers for wanted in scenario.handshakes]
    got = [None if each is None else each.reveal() for each in offered]
    assert got == [wanted.offers for wanted in scenario.handshakes], "a handshake offers another secret, or none"
    says = provider.capabilities.offers_secret
    assert says == any(got), f"offers_secret is {says}, and the handshakes offer {len([each for each in got if each])}"


def check_carried_secrets_are_not_kept(scenario: Scenario) -> None:
    """A secret that stands in the body is in nothing that is kept of it."""
    reply = read(scenario.provider(), scenario)
    body = scenario.webhook.body if reply.body is None else reply.body
    kept = [body, *(bytes(each.payload) for each in reply.events)]
    for name, secrets in scenario.secrets.items():
        found = [secret for secret in secrets if any(secret.encode() in each for each in kept)]
        assert not found, f"what is kept of the webhook has the secret {name}: who has the ledger can forge others"


def check_evidence_is_allowed(scenario: Scenario) -> None:
    """Evidence is fetched by https, and only from hosts that the capabilities name."""
    provider = scenario.provider()
    asked = provider.read_webhook(scenario.webhook, scenario.now)
    if isinstance(asked, NeedsEvidence):
        url, known = asked.request.url, provider.capabilities
        assert known.may_fetch(url), f"evidence is asked from {url.host}; allowed: {known.evidence_hosts}"


def check_rendering_is_accepted(scenario: Scenario) -> None:
    """A rendered event is accepted as a webhook with the same key, type, object and stream."""
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


def check_headers_are_rendered(scenario: Scenario) -> None:
    """A webhook can be read without its optional headers; rendered with those that came, it has them all."""
    provider = scenario.provider()
    optional = provider.capabilities.optional_headers
    bare = scenario.webhook
    for name in optional:
        bare = without_header(bare, name)
    try:
        (*events,) = read(provider, scenario, bare).events
    except WebhookRefused as error:
        raise AssertionError(f"refused without the optional headers {optional}: {error}") from error
    came = {name: f"kept-{number}" for number, name in enumerate(optional)}
    for event in events:
        message = render(provider, scenario, replace(recorded(event, via="webhook"), headers=came))
        lacking = [] if message is None else [name for name in optional if message.headers.get(name) != came[name]]
        assert not lacking, f"{event.key} is rendered without {', '.join(lacking)} of its webhook"
