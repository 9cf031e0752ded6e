"""Secrets that a vendor chooses and tells in an unsigned handshake: only an operator who waits is shown one, once."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gapless.domain import to_us
from gapless.ledger import handshakes
from gapless.ledger.tables import HANDSHAKE
from gapless.one_reader import Reader, is_address, seal
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenario

pytestmark = pytest.mark.anyio
FIXTURES = Path(__file__).parents[2] / "fixtures/rest_list"


async def shake(setup: Any, scenario: Scenario, secret: str | None = None) -> int:
    """Post the vendor's handshake, or one with another secret; return the status."""
    (handshake,) = scenario.handshakes
    assert handshake.offers is not None
    old, new = handshake.offers.encode(), (secret or handshake.offers).encode()
    answer = await setup.client.post(
        "/webhooks/acme",
        content=handshake.request.body.replace(old, new),
        headers=[(name, value.replace(old, new)) for name, value in handshake.request.headers],
    )
    if answer.is_success:
        assert answer.content == b""
        assert {name: answer.headers.get(name) for name in handshake.headers} == dict(handshake.headers)
    return answer.status_code  # type: ignore[no-any-return]


async def wait_for(setup: Any, reader: Reader, within: timedelta = timedelta(minutes=15)) -> None:
    until_us = to_us(setup.now[0] + within)
    await setup.store.write(
        lambda c: handshakes.wait(c, setup.source.id, reader.address, until_us),
    )


async def sealed(setup: Any) -> str | None:
    found = await setup.store.read(lambda c: handshakes.waiting(c, setup.source.id))
    return None if found is None else found.sealed


@pytest.mark.parametrize("name", ["notion", "asana"])
async def test_a_handshake_is_refused_unless_somebody_waits_for_it(serve: Any, name: str) -> None:
    scenario = load_scenario(FIXTURES / name)
    async with serve(provider=scenario.provider()) as setup:
        setup.now[0] = scenario.now
        assert await shake(setup, scenario) == 400
        await wait_for(setup, Reader(), timedelta(0))
        assert await shake(setup, scenario) == 400
        assert await sealed(setup) is None
        assert await setup.events() == {}
        assert await setup.quarantined() == []


@pytest.mark.parametrize("name", ["notion", "asana"])
async def test_the_first_one_is_sealed_for_whoever_waits_and_no_other_displaces_it(serve: Any, name: str) -> None:
    scenario, reader = load_scenario(FIXTURES / name), Reader()
    async with serve(provider=scenario.provider()) as setup:
        setup.now[0] = scenario.now
        await wait_for(setup, reader)
        assert await shake(setup, scenario) == 200
        assert await shake(setup, scenario, "of_a_stranger_who_came_later") == 400
        kept = await sealed(setup)
        assert kept is not None
        assert reader.open(kept) == scenario.handshakes[0].offers
        rows = await setup.store.read(lambda c: [tuple(row) for row in c.execute(select(HANDSHAKE)).all()])
        assert str(scenario.handshakes[0].offers) not in str(rows)
        assert await setup.events() == {}


async def test_what_is_no_secret_is_refused_while_somebody_waits(serve: Any) -> None:
    scenario = load_scenario(FIXTURES / "notion")
    async with serve(provider=scenario.provider()) as setup:
        await wait_for(setup, Reader())
        for secret in ("short", "with space in it", "x" * 501, "\u00e9" * 20):
            assert await shake(setup, scenario, secret) == 400
        assert await sealed(setup) is None


async def test_strangers_ask_the_ledger_no_more_than_a_few_times(serve: Any) -> None:
    scenario = load_scenario(FIXTURES / "notion")
    async with serve(provider=scenario.provider()) as setup:
        assert {await shake(setup, scenario, f"of_a_stranger_{number}") for number in range(20)} == {400}
        await wait_for(setup, Reader())
        assert await shake(setup, scenario) == 400  # the limit is used up: the vendor is asked to try again


def test_only_the_reader_opens_what_is_sealed() -> None:
    ours, other = Reader(), Reader()
    assert ours.open(seal("secret_ü", ours.address)) == "secret_ü"
    with pytest.raises(ValueError, match="another reader"):
        other.open(seal("secret", ours.address))
    assert is_address(ours.address)
    assert not any(map(is_address, ("", "AAAA", "!", "A" * 43 + "=")))
