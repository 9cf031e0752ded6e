"""Known answers for the HMAC forms of the vendors, and no way to crash them."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import SignatureInvalid
from gapless_reconcilers.kit.signatures import (
    SigningKeys,
    hmac_sha256_base64,
    hmac_sha256_hex,
    is_same,
    is_signed_by_any,
    parse_timed_signatures,
)

BODY = b'{"id":"evt_test_1","n":1}'
STRIPE_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("key", "message", "wanted"),
    [
        (STRIPE_SECRET, b"1700000000." + BODY, "c1463b0e913f75f6092319f38f5209c7eca2f07985847de45bb4dcf8d7a036cb"),
        (b"s3cret", BODY, "c5bdfacb96bbbee9ce4eea06f42fc13583ac6ec16024bb595cdc6dfbebfa477e"),
        (
            b"It's a Secret to Everybody",
            b"Hello, World!",
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        (
            b"pdl_ntfset_s3cret",
            b"1700000000:" + BODY,
            "71d9a1c90286f9eb6eb7f3ff595a93525f7efb514915a2fa729dbd5a493f8ea1",
        ),
    ],
    ids=["stripe", "github", "github-docs", "paddle"],
)
def test_hex_signature_is_the_vendors_known_answer(key: bytes, message: bytes, wanted: str) -> None:
    assert hmac_sha256_hex(key, message) == wanted.encode()


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (BODY, b"xb36y5a7vunOTuoG9C/BNYOsbsFgJLtZXNxt++v6R34="),
        (b"https://example.test/hook" + BODY, b"+TqeI7kywGXFaAmC445KrDOL0aGEIPk8SSVSy+aBhII="),
    ],
    ids=["shopify", "square"],
)
def test_base64_signature_is_the_vendors_known_answer(message: bytes, wanted: bytes) -> None:
    assert hmac_sha256_base64(b"s3cret", message) == wanted


@given(key=st.binary(max_size=200), message=st.binary(max_size=500))
def test_hex_signature_is_the_standard_librarys(key: bytes, message: bytes) -> None:
    assert hmac_sha256_hex(key, message).decode() == hmac.new(key, message, hashlib.sha256).hexdigest()


def test_any_of_several_secrets_may_explain_any_of_several_signatures() -> None:
    signed_by_second = hmac_sha256_hex(b"two", BODY)
    assert is_signed_by_any([b"one", b"two"], [b"junk", signed_by_second], BODY)
    assert not is_signed_by_any([b"one", b"three"], [b"junk", signed_by_second], BODY)
    assert not is_signed_by_any([], [signed_by_second], BODY)
    assert not is_signed_by_any([b"two"], [], BODY)


def test_signature_that_is_not_ascii_is_different_and_no_crash() -> None:
    assert not is_same(b"abc", b"\xff\xfe")
    assert not is_signed_by_any([b"k"], ["é".encode("latin-1")], BODY)


def test_blank_secret_signs_nothing_and_no_key_is_shown() -> None:
    keys = SigningKeys([Secret(" \t"), Secret("whsec_a"), Secret("")])
    assert list(keys) == [b"whsec_a"]
    assert "whsec_a" not in repr(keys)


@given(header=st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_any_header_is_parsed_or_refused(header: str) -> None:
    try:
        sent_at, signatures = parse_timed_signatures(header, time="t", scheme="v1")
    except SignatureInvalid as error:
        assert error.reason == "bad_header"  # noqa: PT017 - both outcomes are right
    else:
        assert isinstance(sent_at, int)
        assert all(isinstance(signature, bytes) for signature in signatures)


@pytest.mark.parametrize("headers", [(), ((b"x-signature", b""),)])
def test_a_webhook_without_its_signature_is_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(SignatureInvalid, match="there is no x-signature; has it a secret") as refused:
        WebhookRequest(headers=headers, body=b"").required("x-signature", "has it a secret?")
    assert refused.value.reason == "no_signature"
    assert WebhookRequest(headers=((b"x-signature", b"a"),), body=b"").required("x-signature") == "a"
