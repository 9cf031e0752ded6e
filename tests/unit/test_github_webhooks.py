"""GitHub's webhooks against @octokit/webhooks-methods, both ways, and every refusal by its reason."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import RecordedEvent, RemoteEvent, Secret, WebhookMessage, WebhookRequest
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, WebhookRefused
from gapless_reconcilers.kit.signatures import hmac_sha256_hex
from gapless_reconcilers.providers.github import GitHub, GitHubOptions

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOOK = "292430182"
SECRET = "It's a Secret to Everybody"
CASES = 2000
OCTOKIT = """
import { sign, verify, verifyWithFallback } from "@octokit/webhooks-methods";
const told = [];
for (const [secret, other, body, ours] of input) {
    const signature = await sign(secret, body);
    told.push({
        signature,
        ours: await verify(secret, body, ours),
        forged: await verify(other, body, ours),
        rolled: await verifyWithFallback(other, body, ours, [secret]),
    });
}
answer(told);
"""


def hook(*secrets: str, **options: Any) -> GitHub:
    known = tuple(map(Secret, secrets or (SECRET,)))
    return GitHub(
        GitHubOptions(token=Secret("ghp_x"), webhook_secret=known, repository="acme/shop", hook_id=int(HOOK), **options)
    )


def request_of(body: bytes, signature: str | None = None, **headers: str | None) -> WebhookRequest:
    signed = signature or "sha256=" + hmac_sha256_hex(SECRET.encode(), body).decode()
    pairs: dict[str, str | None] = {
        "x-hub-signature-256": signed, "x-github-event": "issues", "x-github-delivery": "g-1", "x-github-hook-id": HOOK,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    kept = {name: value for name, value in pairs.items() if value is not None}
    return WebhookRequest(headers=tuple((n.encode(), v.encode("latin-1")) for n, v in kept.items()), body=body)


def read(body: bytes, provider: GitHub | None = None, **headers: str | None) -> RemoteEvent:
    (event,) = (provider or hook()).read_webhook(request_of(body, **headers), NOW).events
    return event


def test_the_signature_that_github_publishes_is_the_one_we_make() -> None:
    wanted = b"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert hmac_sha256_hex(SECRET.encode(), b"Hello, World!") == wanted


def test_octokit_and_we_agree_on_thousands_of_signatures_both_ways(javascript: Any) -> None:
    chance = random.Random(7)

    def text(length: int) -> str:
        return "".join(chance.choice(("a", " ", '"', "\\", "ä", "€", "😀", "\n", "{")) for _ in range(length))

    cases = []
    for number in range(CASES):
        secret, body = (
            f"s{number}{text(chance.randrange(9))}",
            json.dumps({"action": text(3), "x": text(9)}, ensure_ascii=False),
        )
        event = RecordedEvent(
            key=f"{HOOK}:g", type="issues.x", occurred_at=NOW, stream="", payload=body.encode(), via="webhook"
        )
        message = hook(secret).render(event, "", Secret(secret), NOW)
        assert isinstance(message, WebhookMessage)
        cases.append((secret, f"{secret}!", body, message.headers["x-hub-signature-256"]))
    for (secret, other, body, _), told in zip(cases, javascript(OCTOKIT, cases), strict=True):
        assert (told["ours"], told["forged"], told["rolled"]) == (True, False, True)
        request = request_of(body.encode(), told["signature"])
        assert hook(secret).read_webhook(request, NOW).events
        assert hook(other, secret).read_webhook(request, NOW).events
        with pytest.raises(SignatureInvalid):
            hook(other).read_webhook(request, NOW)


def test_the_key_names_the_hook_for_its_deliveries_share_their_guid_with_others() -> None:
    ours, theirs = read(b'{"action":"opened"}'), read(b'{"action":"opened"}', x_github_hook_id="5")
    assert (ours.key, ours.type, ours.listable) == (f"{HOOK}:g-1", "issues.opened", True)
    assert (theirs.key, theirs.listable) == ("5:g-1", False)


def test_an_app_has_one_hook_whatever_its_number() -> None:
    app = GitHub(GitHubOptions(webhook_secret=(Secret(SECRET),), app_id="9", app_private_key=Secret("pem")))
    event = read(b"{}", app)
    assert (event.key, event.type, event.listable) == ("app:g-1", "issues", True)


@pytest.mark.parametrize("action", [None, 5, "", {"a": 1}])
def test_an_event_without_an_action_is_of_the_bare_type(action: object) -> None:
    assert read(json.dumps({"action": action}).encode(), x_github_event="push").type == "push"


def test_a_form_is_signed_as_it_is_sent_and_kept_as_it_came() -> None:
    body = b"payload=" + quote_plus(json.dumps({"action": "closed", "title": "Ünder & über"})).encode()
    event = read(body)
    assert (event.type, event.payload) == ("issues.closed", body)
    recorded = RecordedEvent(key=event.key, type=event.type, occurred_at=NOW, stream="", payload=body, via="webhook")
    message = hook().render(recorded, "", Secret(SECRET), NOW)
    assert message.headers["content-type"] == "application/x-www-form-urlencoded"


def test_no_time_is_sent_so_it_occurred_when_it_came() -> None:
    assert read(b"{}").occurred_at == NOW


def test_a_hook_without_a_secret_is_refused_never_taken_on_trust() -> None:
    for provider in (hook(), GitHub(GitHubOptions(token=Secret("x"), repository="a/b", hook_id=1))):
        with pytest.raises(SignatureInvalid) as refused:
            provider.read_webhook(request_of(b"{}", x_hub_signature_256=None), NOW)
        assert refused.value.reason == "no_signature"
    with pytest.raises(SignatureInvalid):
        GitHub(GitHubOptions(token=Secret("x"), repository="a/b", hook_id=1)).read_webhook(request_of(b"{}"), NOW)


@pytest.mark.parametrize("signature", ["sha1=" + "0" * 40, "sha256", "sha256=", "=", "0" * 64])
def test_another_scheme_is_a_bad_header(signature: str) -> None:
    with pytest.raises(SignatureInvalid) as refused:
        hook().read_webhook(request_of(b"{}", signature), NOW)
    assert refused.value.reason == "bad_header"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b"payload=", b"payload=%7B", b"payload=%ff", b'payload="', b"payload"]
)
def test_a_signed_body_that_cannot_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedWebhook):
        hook().read_webhook(request_of(body), NOW)


@pytest.mark.parametrize("name", ["x_github_event", "x_github_delivery", "x_github_hook_id"])
@pytest.mark.parametrize("value", [None, "", "x" * 600])
def test_headers_that_say_what_it_is_must_be_there_and_fit(name: str, value: str | None) -> None:
    with pytest.raises(WebhookRefused):
        hook().read_webhook(request_of(b"{}", **{name: value}), NOW)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=100), signature=st.text(max_size=80).map(lambda text: text.encode().decode("latin-1")))
def test_nothing_but_a_refusal_escapes(body: bytes, signature: str) -> None:
    with pytest.raises(WebhookRefused):
        hook().read_webhook(request_of(body, signature or "x"), NOW + timedelta(days=1))
