"""What reaches a provider besides POST, what it may answer, and what is refused before it is asked."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from gapless_reconcilers.kit.contract import NO_EVIDENCE, Answer, Evidence, Reply, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import SignatureInvalid
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
OPTIONS = StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_after"),), livemode=False)


class Challenged(Stripe):
    """A vendor that proves our endpoint by GET and HEAD, takes 400 for a refusal, and sends compressed bodies."""

    capabilities = replace(
        Stripe.capabilities, methods=("POST", "GET", "HEAD"), refusal_statuses=(400, 403), content_encodings=("br",)
    )

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:
        """Repeat the challenge; `bad` is a header that cannot be sent."""
        if request.method == "POST":
            return super().read_webhook(request, now, evidence)
        challenge = request.param("challenge")
        if challenge is None:
            raise SignatureInvalid("there is no challenge")
        answer = Answer(body=challenge.encode(), headers=(("X-Challenge", challenge),))
        return Reply(events=(), answer=answer)


async def test_a_challenge_by_get_or_head_is_answered_and_nothing_recorded(serve: Any) -> None:
    async with serve(provider=Challenged(OPTIONS)) as setup:
        got = await setup.client.get("/webhooks/acme?challenge=c%201")
        assert (got.status_code, got.text, got.headers["x-challenge"]) == (200, "c 1", "c 1")
        head = await setup.client.head("/webhooks/acme?challenge=c")
        assert (head.status_code, head.content, head.headers["x-challenge"]) == (200, b"", "c")
        assert await setup.events() == {}


async def test_an_answer_that_cannot_be_sent_is_a_refusal(serve: Any) -> None:
    async with serve(provider=Challenged(OPTIONS)) as setup:
        answers = [await setup.client.get(f"/webhooks/acme?challenge={text}") for text in ("a%0d%0ab", "%c3%a9", "%ff")]
        assert [answer.status_code for answer in answers] == [400, 400, 400]
        assert all("x-challenge" not in answer.headers for answer in answers)


async def test_a_method_that_nobody_wants_is_answered_405_with_those_that_are(serve: Any) -> None:
    async with serve(provider=Challenged(OPTIONS)) as setup:
        refused = await setup.client.put("/webhooks/acme")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST, GET, HEAD")
    async with serve() as setup:
        refused = await setup.client.get("/webhooks/acme?challenge=c")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


async def test_a_refusal_has_a_status_that_the_vendor_takes_for_one(serve: Any) -> None:
    async with serve(provider=Challenged(OPTIONS)) as setup:
        refused = await setup.post(setup.event("evt_1"), secret="whsec_stranger")
        assert (refused.status_code, refused.json()["reason"]) == (400, "signature")
        assert setup.counted("webhooks_total", source="acme", outcome="refused") == 1


async def test_events_that_come_by_get_are_refused(serve: Any) -> None:
    class Careless(Stripe):
        capabilities = replace(Stripe.capabilities, methods=("POST", "GET"))

    async with serve(provider=Careless(OPTIONS)) as setup:
        body = setup.event("evt_1")
        answer = await setup.client.request("GET", "/webhooks/acme", content=body, headers=setup.signature(body))
        assert answer.status_code == 405
        assert await setup.events() == {}


async def test_an_encoded_body_is_refused_by_name_and_kept(serve: Any) -> None:
    async with serve() as setup:
        body = setup.event("evt_1")
        headers = {**setup.signature(body), "Content-Encoding": "gzip"}
        refused = await setup.client.post("/webhooks/acme", content=body, headers=headers)
        assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "identity")
        assert "Content-Encoding" in refused.json()["detail"]
        assert await setup.quarantined() == ["encoding"]
        plain = await setup.client.post(
            "/webhooks/acme", content=body, headers={**setup.signature(body), "Content-Encoding": "Identity"}
        )
        assert plain.status_code == 200
        assert await setup.events() == {"evt_1": 1}


async def test_an_encoding_that_the_vendor_uses_reaches_the_provider(serve: Any) -> None:
    async with serve(provider=Challenged(OPTIONS)) as setup:
        body = setup.event("evt_1")
        headers = {**setup.signature(body), "Content-Encoding": "br"}
        assert (await setup.client.post("/webhooks/acme", content=body, headers=headers)).status_code == 200
