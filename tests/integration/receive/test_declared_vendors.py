"""Declared vendors through the real receiver: a handshake, a webhook whose query is signed, a vendor's own answer."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gapless.ledger.tables import EVENT, PAYLOAD, QUARANTINE
from gapless_reconcilers.testing.suite.scenario import load_scenario

pytestmark = pytest.mark.anyio
FIXTURES = Path(__file__).parents[2] / "fixtures/rest_list"


async def sent(setup: Any, name: str, **changes: Any) -> httpx.Response:
    """The answer to the webhook of the vendor's fixture."""
    webhook = load_scenario(FIXTURES / name).webhook
    url = f"/webhooks/acme?{webhook.query.decode()}" if webhook.query else "/webhooks/acme"
    asked = {"content": webhook.body, "headers": list(webhook.headers), **changes}
    return await setup.client.post(url, **asked)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "status", "text", "events"),
    [
        ("discord", 204, "", 1),
        ("adyen", 200, "[accepted]", 2),
        ("event-grid", 200, "", 2),
        ("twilio", 200, "", 1),
    ],
)
async def test_a_webhook_is_recorded_and_answered_as_the_vendor_wants(
    serve: Any, name: str, status: int, text: str, events: int
) -> None:
    scenario = load_scenario(FIXTURES / name)
    async with serve(provider=scenario.provider()) as setup:
        setup.now[0] = scenario.now
        answer = await sent(setup, name)
        assert (answer.status_code, answer.text) == (status, text)
        assert set((await setup.events()).values()) == {1}
        assert len(await setup.events()) == events
        assert (await sent(setup, name)).status_code == status
        assert set((await setup.events()).values()) == {2}


HANDSHAKES = {
    "meta", "dropbox", "okta", "x", "graph", "asana", "trello", "slack", "zoom", "event-grid", "xero", "woocommerce",
    "notion", "cloudevents", "discord", "monday",
}  # fmt: skip
"""The declared vendors that prove an endpoint before they use it; SNS and Braintree have code of their own."""
PATHS = {path.name: path for path in FIXTURES.iterdir()} | {"braintree": FIXTURES.parent / "braintree"}


def test_every_vendor_with_a_handshake_has_the_request_that_it_documents() -> None:
    assert {name for name, path in PATHS.items() if load_scenario(path).handshakes} == {*HANDSHAKES, "braintree"}


@pytest.mark.parametrize("name", sorted({*HANDSHAKES, "braintree"} - {"notion", "asana"}))  # those: `test_offers`
async def test_a_handshake_is_answered_as_documented_and_recorded_by_nobody(serve: Any, name: str) -> None:
    scenario = load_scenario(PATHS[name])
    async with serve(provider=scenario.provider()) as setup:
        setup.now[0] = scenario.now
        for wanted in scenario.handshakes:
            request, url = wanted.request, f"/webhooks/acme?{wanted.request.query.decode()}"
            headers = list(request.headers)
            answer = await setup.client.request(request.method, url, content=request.body, headers=headers)
            assert (answer.status_code, answer.content) == (wanted.status, wanted.body)
            assert {name: answer.headers.get(name) for name in wanted.headers} == dict(wanted.headers)
        assert await setup.events() == {}


@pytest.mark.parametrize("name", ["graph", "figma"])
async def test_a_secret_that_stands_in_the_body_is_kept_nowhere(serve: Any, name: str) -> None:
    scenario = load_scenario(FIXTURES / name)
    secret = scenario.signing_secret.encode()
    async with serve(provider=scenario.provider()) as setup:
        setup.now[0] = scenario.now
        assert secret in scenario.webhook.body
        assert (await sent(setup, name)).is_success
        forged = scenario.webhook.body.replace(secret, b"of-a-stranger")
        assert 400 <= (await sent(setup, name, content=forged)).status_code < 500
        escaped = scenario.webhook.body.replace(secret, b"\\u00%02x%b" % (secret[0], secret[1:]))
        assert 400 <= (await sent(setup, name, content=escaped)).status_code < 500
        rows = await setup.store.read(
            lambda c: [tuple(row) for table in (PAYLOAD, EVENT, QUARANTINE) for row in c.execute(select(table)).all()]
        )
        assert len(await setup.events()) >= 1
        assert b"***" in repr(rows).encode()
        assert secret not in repr(rows).encode()


async def test_xero_is_answered_401_for_what_it_signs_wrongly_on_purpose(serve: Any) -> None:
    scenario = load_scenario(FIXTURES / "xero")
    async with serve(provider=scenario.provider()) as setup:
        setup.now[0] = scenario.now
        for body in (b'{"events":[]}', b"{", b"[]"):
            refused = await sent(setup, "xero", content=body)
            assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)


async def test_a_wrong_password_of_ours_loses_no_event_of_postmark(serve: Any) -> None:
    """Any refusal but 408 and 429 would be final there."""
    scenario = load_scenario(FIXTURES / "postmark")
    async with serve(provider=scenario.provider(webhook_secrets=["gapless:other"])) as setup:
        setup.now[0] = scenario.now
        assert (await sent(setup, "postmark")).status_code == 429
        assert await setup.events() == {}


async def test_a_subscription_of_sns_is_confirmed_by_one_request_after_it_is_verified(serve: Any) -> None:
    scenario = load_scenario(FIXTURES.parent / "sns")
    (handshake,), asked = scenario.handshakes, list[str]()

    def vendor(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=scenario.evidence[str(request.url)])

    async with httpx.AsyncClient(transport=httpx.MockTransport(vendor)) as client:
        async with serve(provider=scenario.provider(), vendor=client) as setup:
            setup.now[0] = scenario.now
            forged = handshake.request.body.replace(b"You have", b"You Have")
            refused = await sent(setup, "../sns", content=forged, headers=list(handshake.request.headers))
            assert (refused.status_code, len(asked)) == (401, 1)
            answer = await sent(
                setup, "../sns", content=handshake.request.body, headers=list(handshake.request.headers)
            )
            assert (answer.status_code, await setup.events()) == (200, {})
            assert asked == list(scenario.evidence)
            assert (await sent(setup, "../sns")).status_code == 200
            assert list(await setup.events()) == ["da41e39f-0000-4000-8000-000000000001"]
