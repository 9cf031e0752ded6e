"""What a stream of JetStream has after a delivery, a retry, a replay and a restart of the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from signal import SIGSTOP
from typing import Any, NoReturn

import pytest
from certificates import Authority
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from own_brokers import PAYLOAD, OwnNats, client_library, context, delivery, missing_program, own_nats

from gapless.destinations.contract import Delivered, Failed, FailureReason
from gapless.destinations.headers import identity_headers
from gapless.destinations.nats import NatsOptions, NatsSender
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret

client_library("nats", "nats")
pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path, absent: Callable[[str, str], NoReturn]) -> AsyncIterator[OwnNats]:
    if reason := missing_program("nats-server"):
        absent("nats", reason)
    async with own_nats(tmp_path) as server:
        async with server.client() as client:
            await client.jetstream().add_stream(name="BILLING", subjects=["billing.>"])
        yield server


def sender(server: OwnNats, name: str = "queue", **options: Any) -> NatsSender:
    chosen: dict[str, Any] = {"servers": (server.address,), "subject": "billing.{source}.{type}"}
    return NatsSender(NatsOptions(**(chosen | options)), context(name))


async def test_a_message_has_the_headers_and_the_payload_as_received(server: OwnNats) -> None:
    sent, one = sender(server), delivery(stream="a b", livemode=True)
    result = await sent.send(one)
    await sent.close()
    assert isinstance(result, Delivered)
    assert result.detail == "stream BILLING, message 1"
    (message,) = await server.messages("BILLING")
    assert message.data == PAYLOAD
    assert message.subject == "billing.acme.invoice.paid"
    expected = identity_headers(one) | {"Nats-Msg-Id": f"{one.id}/queue/0"}
    assert message.headers == expected
    assert expected["gapless-stream"] == "a%20b"


async def test_a_retry_is_one_message_and_a_replay_another(server: OwnNats) -> None:
    sent, one = sender(server), delivery()
    assert await sent.send(one) == Delivered(detail="stream BILLING, message 1")
    assert await sent.send(replace(one, attempt=2)) == Delivered(
        detail="stream BILLING, message 1, which had it already"
    )
    assert await sent.send(replace(one, generation=1)) == Delivered(detail="stream BILLING, message 2")
    await sent.close()
    assert [each.headers["idempotency-key"] for each in await server.messages("BILLING")] == [one.id, one.id]


async def test_two_destinations_in_one_stream_both_get_the_event(server: OwnNats) -> None:
    for name in ("one", "two"):
        sent = sender(server, name, subject=f"billing.{name}")
        assert isinstance(await sent.send(delivery()), Delivered)
        await sent.close()
    assert [each.subject for each in await server.messages("BILLING")] == ["billing.one", "billing.two"]


async def test_a_subject_that_no_stream_takes_is_tried_again(server: OwnNats) -> None:
    sent = sender(server, subject="other")
    result = await sent.send(delivery())
    assert isinstance(result, Failed)
    assert (result.reason, result.permanent) == (FailureReason.CONSUMER_ERROR, False)
    assert "no stream takes the subject other" in result.detail
    assert await sent.address_problems() == ["no stream takes the subject other; add one, such as `nats stream add`"]
    await sent.close()


@pytest.mark.parametrize("answer", [b"thanks", b'{"ok": true}'])
async def test_an_answer_that_is_no_streams_delivers_nothing(server: OwnNats, answer: bytes) -> None:
    async with server.client() as client:

        async def responded(message: Any) -> None:
            await message.respond(answer)

        await client.subscribe("other", cb=responded)
        await client.flush()
        sent = sender(server, subject="other")
        result = await sent.send(delivery())
        await sent.close()
    assert isinstance(result, Failed)
    assert (result.reason, result.permanent) == (FailureReason.CONSUMER_ERROR, False)
    assert result.detail == "what answers on the subject other is no stream"


async def test_a_message_that_is_too_large_is_permanent_and_breaks_nothing(server: OwnNats) -> None:
    async with server.client() as client:
        await client.jetstream().add_stream(name="SMALL", subjects=["small"], max_msg_size=2000)
    sent = sender(server)
    large, edge = bytes(2**20 + 1), bytes(2**20 - 100)  # the headers count as well
    for payload in (large, edge):
        result = await sent.send(delivery(payload=payload))
        assert isinstance(result, Failed)
        assert (result.reason, result.permanent) == (FailureReason.REJECTED, True)
        assert "takes at most 1048576" in result.detail
    assert isinstance(await sent.send(delivery()), Delivered)
    await sent.close()
    small = sender(server, subject="small")
    refused = await small.send(delivery(payload=bytes(3000)))
    await small.close()
    assert isinstance(refused, Failed)
    assert (refused.reason, refused.permanent) == (FailureReason.REJECTED, True)
    assert refused.detail == "the stream refused it: message size exceeds maximum allowed"


async def test_the_connection_heals_after_a_restart_of_the_server(server: OwnNats) -> None:
    sent = sender(server)
    assert isinstance(await sent.send(delivery("evt_1")), Delivered)
    server.end()
    refused = await sent.send(delivery("evt_2"))
    assert isinstance(refused, Failed)
    assert (refused.reason, refused.permanent) == (FailureReason.CONNECTION, False)
    await server.start()
    assert isinstance(await sent.send(delivery("evt_2")), Delivered)
    await sent.close()
    assert len(await server.messages("BILLING")) == 2


async def test_an_attempt_ends_when_its_connection_breaks(server: OwnNats) -> None:
    sent = sender(server)
    assert isinstance(await sent.send(delivery("evt_1")), Delivered)
    assert server.process is not None
    server.process.send_signal(SIGSTOP)
    under_way = asyncio.create_task(sent.send(delivery("evt_2")))
    await asyncio.sleep(0)  # it has begun
    server.end()
    result = await under_way
    await sent.close()
    assert isinstance(result, Failed)
    assert result.reason is FailureReason.CONNECTION


async def test_a_wrong_password_is_a_failed_connection_and_in_no_message(
    tmp_path: Path, absent: Callable[[str, str], NoReturn]
) -> None:
    if reason := missing_program("nats-server"):
        absent("nats", reason)
    async with own_nats(tmp_path, "--user", "gapless", "--pass", "right") as server:
        sent = sender(server, user="gapless", password=SecretRef(value=Secret("hunter2")))
        result = await sent.send(delivery())
        (problem,) = await sent.address_problems()
        await sent.close()
        right = sender(server, user="gapless", password=SecretRef(value=Secret("right")))
        accepted = await right.send(delivery())
        await right.close()
    assert isinstance(result, Failed)
    assert result.reason is FailureReason.CONNECTION
    assert "uthorization" in result.detail
    assert "hunter2" not in result.detail + problem
    assert isinstance(accepted, Failed)
    assert accepted.reason is FailureReason.CONSUMER_ERROR  # there is no stream, but the server took the password


async def test_tls_is_checked_against_the_named_authority(
    tmp_path: Path, absent: Callable[[str, str], NoReturn]
) -> None:
    if reason := missing_program("nats-server"):
        absent("nats", reason)
    authority, certificate, key, ca = Authority(), tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "ca.pem"
    pem, private = authority.leaf("localhost")
    certificate.write_bytes(pem)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    ca.write_bytes(authority.root_pem())
    async with own_nats(tmp_path, "--tls", "--tlscert", str(certificate), "--tlskey", str(key)) as server:
        address = f"tls://localhost:{server.port}"
        trusted, unknown = sender(server, servers=(address,), ca=str(ca)), sender(server, servers=(address,))
        assert await trusted.address_problems() == []
        (problem,) = await unknown.address_problems()
        await trusted.close()
        await unknown.close()
    assert "CERTIFICATE_VERIFY_FAILED" in problem
