"""What is lost for good is trouble until a person has said that it was looked into; it stays in every report."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from gapless.domain import Cause, to_us
from gapless.ledger import missing
from gapless.ledger.missing import Missing
from gapless.ledger.tables import AUDIT_LOG, MISSING, UNRECOVERABLE
from gapless.operations.context import OperationRefused
from gapless.operations.registry import perform
from gapless.status.reader import read_report
from gapless.status.report import ListReport, StatusReport
from gapless.status.troubles import TroubleKind, troubles

pytestmark = pytest.mark.anyio
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


async def lose(office: Any, ago: timedelta, stream_id: int | None = None) -> int:
    """An unrecoverable minute that ended `ago`."""
    end_us = to_us(office.now[0] - ago)
    own = await office.stream_id() if stream_id is None else stream_id
    lost = {"start_us": end_us - 60_000_000, "end_us": end_us, "reason": "history_exceeded"}
    await office.rows(UNRECOVERABLE, stream_id=own, recorded_us=end_us, **lost)
    return int(await office.sql(select(UNRECOVERABLE.c.id).where(UNRECOVERABLE.c.end_us == end_us)))


async def lose_event(office: Any, ago: timedelta) -> None:
    """An event that the provider no longer has."""
    row = Missing(
        source_id=office.source().id, stream_id=await office.stream_id(), key=f"evt_{ago}", type="invoice.paid",
        occurred_us=to_us(office.now[0] - ago), found_us=to_us(office.now[0] - DAY), expected=True,
        cause=Cause.UNEXPLAINED, reason="detail",
    )  # fmt: skip
    await office.desk.runtime.write(lambda c: missing.add(c, 0, [row]))
    gone = update(MISSING).where(MISSING.c.key == row.key).values(state="lost")
    await office.desk.runtime.write(lambda c: c.execute(gone).rowcount)


async def read(office: Any) -> StatusReport:
    return await read_report(office.desk.runtime.store, office.desk.sources, office.budgets, office.now[0])


async def listed(office: Any) -> ListReport:
    found = (await read(office)).sources[0].listed
    assert found is not None
    return found


async def kinds(office: Any) -> set[TroubleKind]:
    return {each.kind for each in troubles(await read(office))}


async def acknowledge(office: Any, **args: object) -> dict[str, Any]:
    given = {"source": "acme", "reason": "compared with the payouts"}
    return await perform(office.desk, "source.acknowledge", given | args)


async def test_what_is_lost_is_trouble_until_acknowledged(office: Any) -> None:
    await office.listed()
    first, second = await lose(office, 9 * DAY), await lose(office, 3 * DAY)
    await lose_event(office, 5 * DAY)
    assert await kinds(office) == {TroubleKind.UNRECOVERABLE, TroubleKind.EVENTS_LOST}
    done = await acknowledge(office)
    assert (done["intervals"], done["lost"]) == ([first, second], 1)
    assert await kinds(office) == set()
    after = await listed(office)
    assert after.unrecoverable_time == 2 * MINUTE
    assert {each.acknowledged_reason for each in after.unrecoverable} == {"compared with the payouts"}
    assert {each.acknowledged_by for each in after.unrecoverable} == {"api"}
    assert (await read(office)).sources[0].losses.recovered == 0  # type: ignore[union-attr]


async def test_the_audit_log_keeps_the_reason(office: Any) -> None:
    number = await lose(office, DAY)
    await acknowledge(office)
    assert await office.audited() == [("source.acknowledge", "acme")]
    detail = json.loads(await office.sql(select(AUDIT_LOG.c.detail)))
    assert detail == {"intervals": [number], "lost": 0, "reason": "compared with the payouts"}


async def test_what_ended_later_is_not_acknowledged_with_the_rest(office: Any) -> None:
    first, second = await lose(office, 9 * DAY), await lose(office, 3 * DAY)
    await lose_event(office, 2 * DAY)
    done = await acknowledge(office, until=(office.now[0] - 5 * DAY).isoformat())
    assert (done["intervals"], done["lost"]) == ([first], 0)
    assert [each.id for each in (await listed(office)).not_acknowledged] == [second]


async def test_one_interval_can_be_named_and_keeps_its_first_reason(office: Any) -> None:
    first, second = await lose(office, 9 * DAY), await lose(office, 3 * DAY)
    assert (await acknowledge(office, intervals=[second]))["intervals"] == [second]
    assert (await acknowledge(office, reason="again"))["intervals"] == [first]
    reasons = {each.id: each.acknowledged_reason for each in (await listed(office)).unrecoverable}
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
async def test_what_cannot_be_acknowledged_is_refused(office: Any, args: dict[str, object], message: str) -> None:
    with pytest.raises(OperationRefused, match=message):
        await acknowledge(office, **args)
    assert await office.audited() == []


async def test_nobody_acknowledges_what_another_source_lost(office: Any) -> None:
    await office.add_source("other")
    number = await lose(office, DAY, await office.stream_id("other"))
    with pytest.raises(OperationRefused, match="has no unrecoverable interval"):
        await acknowledge(office, intervals=[number])
    assert (await acknowledge(office))["intervals"] == []


async def test_the_page_shows_what_was_acknowledged_as_such(office: Any, listen: Any) -> None:
    await office.listed()
    await lose(office, 3 * DAY)
    async with listen() as client:
        assert "not acknowledged" in (await client.get("/")).text
        await acknowledge(office)
        page = (await client.get("/")).text
        (source,) = (await client.get("/api/status")).json()["sources"]
    assert "not acknowledged" not in page
    assert "compared with the payouts" in page
    assert source["list"]["unrecoverable"][0]["acknowledged"]["reason"] == "compared with the payouts"
