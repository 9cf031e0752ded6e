"""Losses for good are trouble until a person acknowledges them; they stay in every report."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from gapless.domain import Cause, to_us
from gapless.ledger import missing
from gapless.ledger.missing import Missing
from gapless.ledger.tables import AUDIT_LOG, UNRECOVERABLE
from gapless.operations.context import OperationRefused
from gapless.operations.registry import perform
from gapless.status.reader import read_report
from gapless.status.report import SourceReport, StatusReport
from gapless.status.troubles import TroubleKind, troubles

pytestmark = pytest.mark.anyio
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


async def lose(console: Any, ago: timedelta, stream_id: int | None = None) -> int:
    """An unrecoverable minute that ended `ago`."""
    end_us = to_us(console.now[0] - ago)
    own = await console.stream_id() if stream_id is None else stream_id
    lost = {"start_us": end_us - 60_000_000, "end_us": end_us, "reason": "history_exceeded"}
    await console.rows(UNRECOVERABLE, stream_id=own, recorded_us=end_us, **lost)
    return int(await console.sql(select(UNRECOVERABLE.c.id).where(UNRECOVERABLE.c.end_us == end_us)))


async def lose_event(console: Any, ago: timedelta) -> None:
    """An event that the provider no longer has."""
    row = Missing(
        source_id=console.source().id, stream_id=await console.stream_id(), key=f"evt_{ago}", type="invoice.paid",
        occurred_us=to_us(console.now[0] - ago), found_us=to_us(console.now[0] - DAY), expected=True,
        cause=Cause.UNEXPLAINED, reason="detail",
    )  # fmt: skip
    await console.context.runtime.write(lambda c: missing.add(c, 0, [row]))
    now_us = to_us(console.now[0])
    await console.context.runtime.write(missing.give_up, row=row, error="404", now_us=now_us, unit_us=1_000_000)


async def read(console: Any) -> StatusReport:
    return await read_report(console.context.runtime.store, console.context.sources, console.now[0])


async def source(console: Any) -> SourceReport:
    return (await read(console)).sources[0]


async def kinds(console: Any) -> set[TroubleKind]:
    return {each.kind for each in troubles(await read(console))}


async def acknowledge(console: Any, **args: object) -> dict[str, Any]:
    defaults = {"source": "acme", "reason": "compared with the payouts"}
    return await perform(console.context, "source.acknowledge", defaults | args)


async def test_what_is_lost_is_trouble_until_acknowledged(console: Any) -> None:
    await console.listed()
    first, second = await lose(console, 9 * DAY), await lose(console, 3 * DAY)
    await lose_event(console, 5 * DAY)
    assert await kinds(console) == {TroubleKind.UNRECOVERABLE, TroubleKind.EVENTS_LOST}
    done = await acknowledge(console)
    assert done["intervals"][:2] == [first, second]
    assert len(done["intervals"]) == 3
    assert await kinds(console) == set()
    after = await source(console)
    assert after.unrecoverable_time == 2 * MINUTE + timedelta(seconds=1)
    assert {each.acknowledged_reason for each in after.unrecoverable} == {"compared with the payouts"}
    assert {each.acknowledged_by for each in after.unrecoverable} == {"api"}
    assert (await read(console)).sources[0].losses.recovered == 0  # type: ignore[union-attr]


async def test_the_audit_log_keeps_the_reason(console: Any) -> None:
    number = await lose(console, DAY)
    await acknowledge(console)
    assert await console.audited() == [("source.acknowledge", "acme")]
    detail = json.loads(await console.sql(select(AUDIT_LOG.c.detail)))
    assert detail == {"intervals": [number], "expired": 0, "reason": "compared with the payouts"}


async def test_what_ended_later_is_not_acknowledged_with_the_rest(console: Any) -> None:
    first, second = await lose(console, 9 * DAY), await lose(console, 3 * DAY)
    await lose_event(console, 2 * DAY)
    done = await acknowledge(console, until=(console.now[0] - 5 * DAY).isoformat())
    assert done["intervals"] == [first]
    left = (await source(console)).not_acknowledged
    assert [(each.id, each.reason) for each in left][:1] == [(second, "history_exceeded")]
    assert [each.reason for each in left][1:] == ["event_lost"]


async def test_one_interval_can_be_named_and_keeps_its_first_reason(console: Any) -> None:
    first, second = await lose(console, 9 * DAY), await lose(console, 3 * DAY)
    assert (await acknowledge(console, intervals=[second]))["intervals"] == [second]
    assert (await acknowledge(console, reason="again"))["intervals"] == [first]
    reasons = {each.id: each.acknowledged_reason for each in (await source(console)).unrecoverable}
    assert reasons == {second: "compared with the payouts", first: "again"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"reason": "  "}, "reason"),
        ({"intervals": [4711]}, "has no unrecoverable interval 4711; it has none; nothing was acknowledged"),
        ({"source": "nobody"}, "source 'nobody' is not in the ledger"),
        ({"intervals": [1], "until": "2026-11-01T00:00:00Z"}, "takes until or intervals"),
    ],
)
async def test_what_cannot_be_acknowledged_is_refused(console: Any, args: dict[str, object], message: str) -> None:
    with pytest.raises(OperationRefused, match=message):
        await acknowledge(console, **args)
    assert await console.audited() == []


async def test_nobody_acknowledges_what_another_source_lost(console: Any) -> None:
    await console.add_source("other")
    number = await lose(console, DAY, await console.stream_id("other"))
    with pytest.raises(OperationRefused, match="has no unrecoverable interval"):
        await acknowledge(console, intervals=[number])
    assert (await acknowledge(console))["intervals"] == []


async def test_the_pages_show_what_was_acknowledged_as_such(console: Any, listen: Any) -> None:
    await console.listed()
    await lose(console, 3 * DAY)
    async with listen() as client:
        assert "can never be found" in (await client.get("/")).text
        assert "not acknowledged" in (await client.get("/unrecoverable")).text
        await acknowledge(console)
        overview = (await client.get("/")).text
        page = (await client.get("/unrecoverable")).text
        (shown,) = (await client.get("/api/status")).json()["sources"]
    assert "can never be found" not in overview
    assert "not acknowledged" not in page
    assert "compared with the payouts" in page
    assert shown["unrecoverable"][0]["acknowledged"]["reason"] == "compared with the payouts"
