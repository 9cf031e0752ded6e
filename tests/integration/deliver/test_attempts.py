"""What is kept of each attempt: the answer, bounded and masked; and attempts are bounded in number."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from gapless.destinations.contract import Answer, Failed, FailureReason
from gapless.domain import system_clock, to_us
from gapless.ledger import attempts, dead_letters, deliveries, retention
from gapless.ledger.deliveries import Attempt, DeliveryState, Settlement
from gapless.ledger.tables import ATTEMPT, DELIVERY
from gapless.operations.attempts import as_values, of_key
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
CARD = b'{"id":"evt_1","card":{"number":"4242-4242-4242"},"name":"Zo\xc3\xab \\"Z\\" O\'Hara"}'
MASK = ("/card", "/name")


async def tried(setup: Any, consumer: Any, state: str = "dead", **options: Any) -> list[attempts.AttemptDetails]:
    """Deliver one event, and return its attempts."""
    async with setup.delivering(setup.destination(setup.http(consumer.url, **options))):
        seqs = await setup.record(setup.sighting("evt_1", body=CARD))
        await setup.until(state)
    found: list[attempts.AttemptDetails] = await setup.store.read(attempts.of_event, next(iter(seqs.values())))
    return found


async def test_an_attempt_keeps_status_latency_headers_and_body(setup: Any, consumer: Any) -> None:
    consumer.will_answer(503, "retry-after: 0", "server: shop/1", "set-cookie: a=b", "x-other: 1", body=b"db is down")
    consumer.will_answer(410, "X-Request-Id: r-1", "content-type: application/json", "x-trace: t1", body=b'{"e":1}')
    first, second = await tried(setup, consumer, keep_answer_headers=("X-Trace",))
    assert first.answer == Answer(status=503, headers={"retry-after": "0", "server": "shop/1"}, body="db is down")
    headers = {"x-request-id": "r-1", "content-type": "application/json", "x-trace": "t1"}
    assert second.answer == Answer(status=410, headers=headers, body='{"e":1}')
    assert (first.outcome, first.detail, second.outcome) == ("consumer_5xx", "HTTP 503", "consumer_4xx")
    assert first.duration_us > 0
    assert first.at_us < second.at_us


@pytest.mark.parametrize("body", [b"\xff\xfe\x00binary", b"GIF89a\x01\x00\x01", b"\x1f\x8b\x08compressed"])
async def test_a_body_that_is_no_text_is_not_kept(setup: Any, consumer: Any, body: bytes) -> None:
    consumer.will_answer(410, body=body)
    (attempt,) = await tried(setup, consumer)
    assert attempt.answer == Answer(status=410)


async def test_a_compressed_body_is_not_kept(setup: Any, consumer: Any) -> None:
    consumer.will_answer(410, "content-encoding: br", body=b"looks like text")
    (attempt,) = await tried(setup, consumer)
    assert attempt.answer == Answer(status=410)


async def test_no_body_is_kept_if_that_is_switched_off(setup: Any, consumer: Any) -> None:
    consumer.will_answer(410, "server: shop", body=b"secret diagnosis")
    (attempt,) = await tried(setup, consumer, keep_answer_body=False)
    assert attempt.answer == Answer(status=410, headers={"server": "shop"})


async def test_a_long_answer_is_kept_in_part(setup: Any, consumer: Any) -> None:
    consumer.will_answer(410, f"server: {'s' * 2000}", body="é".encode() * 9_999)
    (attempt,) = await tried(setup, consumer)
    assert attempt.answer is not None
    assert (attempt.answer.body, attempt.answer.is_cut) == ("é" * 1024, True)
    assert attempt.answer.headers == {"server": "s" * 256}


async def test_an_answer_that_repeats_the_event_is_masked(setup: Any, consumer: Any) -> None:
    setup.sources.change("acme", mask=MASK)
    echo = CARD.replace(b"Zo\xc3\xab", b"Zo\\u00eb") + b" <b>Zo\xc3\xab &quot;Z&quot; O&#x27;Hara</b> 4242-4242-4242"
    consumer.will_answer(410, "server: 4242-4242-4242", body=echo)
    (attempt,) = await tried(setup, consumer)
    assert attempt.answer is not None
    assert attempt.answer.body == '{"id":"evt_1","card":{"number":"***"},"name":"***"} <b>***</b> ***'
    assert attempt.answer.headers == {"server": "***"}


async def test_no_part_of_a_masked_value_is_left_where_a_body_is_cut(setup: Any, consumer: Any) -> None:
    setup.sources.change("acme", mask=MASK)
    consumer.will_answer(410, body=b"x" * (1024 - 6) + b"4242-4242-4242 and more")
    consumer.will_answer(410, body=b"4242-4242-4242" * 292 + b"4242-4242-42")  # cut by reading, in the last one
    (short,) = await tried(setup, consumer)
    assert short.answer is not None
    assert "4242" not in short.answer.body
    await setup.writer.submit(dead_letters.requeue, to_us(system_clock()))
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.until("dead")
    (row,) = await setup.deliveries()
    _, cut = await setup.store.read(attempts.of_event, row.event_seq)
    assert "42" not in cut.answer.body


async def test_a_handler_that_sends_back_our_secrets_has_them_hidden(setup: Any, consumer: Any) -> None:
    consumer.will_answer(410, body=b"you sent Bearer top-secret-1")
    (attempt,) = await tried(setup, consumer, headers_env={"Authorization": Fixed("Bearer top-secret-1")})
    assert attempt.answer == Answer(status=410, body="you sent ***")


class Fixed:
    """A secret of the configuration."""

    def __init__(self, value: str) -> None:
        self._value = value

    def read(self) -> Secret:
        return Secret(self._value)


async def test_a_mask_that_is_newer_than_the_attempt_counts(setup: Any, consumer: Any) -> None:
    consumer.will_answer(410, body=b"no card 4242-4242-4242")
    await tried(setup, consumer)
    ((_, payload, (attempt,)),) = await setup.store.read(of_key, "evt_1")
    assert as_values(attempt, payload, ())["answer"]["body"] == "no card 4242-4242-4242"  # type: ignore[index]
    assert as_values(attempt, payload, MASK)["answer"]["body"] == "no card ***"  # type: ignore[index]


async def test_trap_a_403_each_time_ends_as_failed_with_its_count(setup: Any, consumer: Any) -> None:
    consumer.will_answer(403, body=b"forbidden", times=9)
    found = await tried(setup, consumer)
    (row,) = await setup.deliveries()
    assert (row.state, row.reason, row.attempts) == ("dead", "consumer_4xx", 4)
    refused = Answer(status=403, body="forbidden")
    assert [(each.outcome, each.answer) for each in found] == [("consumer_4xx", refused)] * 4


async def test_trap_a_200_with_a_page_of_html_can_be_seen(setup: Any, consumer: Any) -> None:
    consumer.will_answer(200, "content-type: text/html", body=b"<h1>log in</h1>")
    (attempt,) = await tried(setup, consumer, state="delivered")
    assert attempt.outcome == "delivered"
    assert attempt.answer == Answer(status=200, headers={"content-type": "text/html"}, body="<h1>log in</h1>")


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (404, "consumer_4xx"),
        (429, "throttled"),
        (500, "consumer_5xx"),
        (302, "redirect"),
        ("hangs", "timeout"),
        ("unknown host", "connection"),
        ("private", "address_refused"),
    ],
)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_trap_outpost_a_dead_letter_says_whose_fault_it_is(
    setup: Any, consumer: Any, failed: int | str, reason: str
) -> None:
    """And a name that is not found is tried again, as any failure that may pass."""
    url, changes, options = consumer.url, {}, {}
    if isinstance(failed, int):
        consumer.will_answer(failed, times=4)
    elif failed == "hangs":
        consumer.will_answer(200, after_s=30, times=4)
        changes = {"timeout": timedelta(milliseconds=50)}
    elif failed == "unknown host":
        url = "http://no-such-host.invalid/"
    else:
        options = {"allow": ()}
    async with setup.delivering(setup.destination(setup.http(url, **options), **changes)):
        seqs = await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    found = await setup.store.read(attempts.of_event, next(iter(seqs.values())))
    assert (row.reason, row.attempts, [each.outcome for each in found]) == (reason, 4, [reason] * 4)
    assert {each.answer is None for each in found} == {isinstance(failed, str)}


async def test_trap_hookaido_attempts_of_one_delivery_are_bounded(setup: Any) -> None:
    seqs = await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))
    many, few = seqs.values()
    for seq, times in ((many, 130), (few, 3)):
        for at_us in range(times):
            await setup.writer.submit(settled, setup.destination_id, seq, at_us)
    trim = partial(retention.trim_attempts, destination_id=setup.destination_id, most=100)
    assert (await setup.writer.submit(trim)).count == 30
    assert (await setup.writer.submit(trim)).count == 0
    kept = await setup.store.read(attempts.of_event, many, limit=1000)
    assert [each.at_us for each in kept] == list(range(30, 130))
    assert len(await setup.store.read(attempts.of_event, few)) == 3
    await setup.writer.submit(settled, setup.destination_id, many, 130)
    assert (await setup.writer.submit(trim)).count == 1


def settled(connection: Any, destination_id: int, seq: int, at_us: int) -> int:
    """Requeue the delivery, and let one more attempt fail."""
    mine = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq == seq)
    again = update(DELIVERY).where(*mine).values(state="pending", attempts=0, lease_us=0, next_us=0)
    connection.execute(again)
    (other,) = [each for each in deliveries.claim(connection, destination_id, 1, 10, 1) if each.seq == seq]
    failed = Attempt(at_us=at_us, duration_us=1, outcome="timeout", detail="x")
    done = Settlement(claim=other, state=DeliveryState.DEAD, at_us=at_us, reason="timeout", attempt=failed)
    deliveries.settle(connection, [done])
    return 1


async def test_to_keep_the_answer_costs_one_look_for_erased_events(setup: Any) -> None:
    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(8)))
    answered = Answer(status=200, headers={"server": "x"}, body="ok")

    def settle(connection: Any, answer: Answer | None) -> list[str]:
        claims = deliveries.claim(connection, setup.destination_id, to_us(system_clock()), 4, 10)
        done = Attempt(at_us=1, duration_us=1, outcome="delivered", answer=answer)
        ends = [Settlement(claim=each, state=DeliveryState.DELIVERED, at_us=1, attempt=done) for each in claims]
        executed: list[str] = []

        def note(_: Any, __: Any, statement: str, *___: Any) -> None:
            executed.append(statement)

        event.listen(connection, "before_cursor_execute", note)
        deliveries.settle(connection, ends)
        event.remove(connection, "before_cursor_execute", note)
        return executed

    without = await setup.writer.submit(settle, None)
    (look,) = await setup.writer.submit(settle, answered)
    assert "erased_us" in look
    count = await setup.store.read(lambda c: c.execute(select(func.count()).select_from(ATTEMPT)).scalar())
    assert (count, without) == (8, [])  # two statements straight to the driver: one settles, one notes the attempts


async def test_arbitrary_characters_of_an_answer_can_be_stored(setup: Any) -> None:
    class Odd:
        async def send(self, _: Any) -> Any:
            answer = Answer(status=7, headers={"a\0b": "\ud800"}, body="nul \0 and \ud83d")
            return replace(failed, answer=answer)

        async def close(self) -> None:
            return

    failed = Failed(reason=FailureReason.REJECTED, detail="no", permanent=True)
    async with setup.delivering(setup.destination(Odd())):
        seqs = await setup.record(setup.sighting("evt_1"))
        await setup.until("dead")
    (attempt,) = await setup.store.read(attempts.of_event, next(iter(seqs.values())))
    assert attempt.answer == Answer(status=7, headers={"ab": "?"}, body="nul  and ?")
