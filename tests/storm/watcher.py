"""Asks the daemon every second what it claims, and reads right afterwards what the ledger holds."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from gapless.ledger import Connection
from gapless.ledger.engine import StoreError, open_store
from gapless.ledger.tables import EVENT, FINDING
from gapless_reconcilers.testing.fake import utc_now
from storm.evidence import Row, Sample, Totals
from storm.supervisor import ShiftedClock

EVERY_S = 1.0
ANSWER_WITHIN_S = 2.0
OVERLAP = 500
"""Events before the last one that are read again: on PostgreSQL, commits are not in the order of their numbers."""
SLACK = timedelta(seconds=2)
NEEDS_NOBODY = frozenset({"good", "in_hand"})


@dataclass(slots=True, kw_only=True)
class Watcher:
    """Watches one source. `samples` and `recorded_at` are what it has seen."""

    status_url: str
    ledger_url: str
    """By a way on which no fault lies."""
    clock: ShiftedClock
    client: httpx.AsyncClient
    samples: list[Sample] = field(default_factory=list)
    recorded_at: dict[str, datetime] = field(default_factory=dict)
    _last_seq: int = 0
    _checked: tuple[datetime, datetime] | None = None
    """The last `checked_at` as it was shown, and the true time of it."""

    async def watch(self) -> None:
        """Take a sample every second, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self.sample()
            due = max(due + EVERY_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def sample(self) -> Sample:
        """Take one sample."""
        status = await self.status()
        at = utc_now()
        was_read = status is not None and await self._read_ledger(at)
        sample = Sample(at=at, answered=False) if status is None else self._sample(status, at, was_read)
        self.samples.append(sample)
        return sample

    async def status(self) -> dict[str, Any] | None:
        """Return what `/api/status` says, or None if it does not say anything in time."""
        with suppress(httpx.HTTPError, ValueError):
            response = await self.client.get(self.status_url, timeout=ANSWER_WITHIN_S)
            if response.is_success:
                status: dict[str, Any] = json.loads(response.content)
                return status if status["sources"] else None
        return None

    def _sample(self, status: dict[str, Any], at: datetime, was_read: bool) -> Sample:
        (source,) = status["sources"]
        listed = source["list"]
        return Sample(
            at=at,
            answered=True,
            ledger_read=was_read,
            complete_up_to=_time(listed["complete_up_to"]),
            checked_at=self._true(_time(listed["checked_at"]), at),
            watermark=_time(listed["watermark"]),
            found_behind=listed["found_behind_watermark"],
            needs_a_person=tuple(
                trouble["kind"] for trouble in status["troubles"] if trouble["severity"] not in NEEDS_NOBODY
            ),
            last_outcome=source["streams"][0]["last_outcome"],
        )

    def _true(self, shown: datetime | None, now: datetime) -> datetime | None:
        """Return the true time of a stamp of the daemon's clock, as it was when the stamp first was seen."""
        if shown is None:
            return None
        if self._checked is None or self._checked[0] != shown:
            self._checked = (shown, true_time(shown, self.clock.offsets, now))
        return self._checked[1]

    async def _read_ledger(self, at: datetime) -> bool:
        """Note at `at` the events that are new in the ledger. Return False if it could not be read."""
        query = select(EVENT.c.seq, EVENT.c.key).where(EVENT.c.seq > self._last_seq - OVERLAP)
        try:
            rows = await read(self.ledger_url, lambda connection: list(connection.execute(query)))
        except (OSError, StoreError, SQLAlchemyError):
            return False
        for seq, key in rows:
            self.recorded_at.setdefault(key, at)
            self._last_seq = max(self._last_seq, seq)
        return True


def true_time(shown: datetime, offsets: Sequence[tuple[datetime, timedelta]], now: datetime) -> datetime:
    """Return when a clock with these offsets showed `shown`: the latest such time, and never later than `now`.

    A process obeys a new offset within a second or two. A stamp that no offset explains is taken as true.
    """
    ends = [*(begin for begin, _ in offsets[1:]), now]
    for (begin, offset), end in zip(reversed(offsets), reversed(ends), strict=True):
        time = shown - offset
        if begin - SLACK <= time <= min(end + SLACK, now):
            return time
    return min(shown, now)


async def read_rows(url: str) -> list[Row]:
    """Return every event of the ledger."""

    def work(connection: Connection) -> list[Row]:
        columns = (EVENT.c.key, EVENT.c.via, EVENT.c.expected, EVENT.c.missed_cause, EVENT.c.webhook_count)
        awaited = set(connection.execute(select(FINDING.c.key)).scalars())
        return [
            Row(
                key=key,
                via=via,
                expected=bool(expected),
                missed=cause is not None,
                webhooks=count,
                awaited=key in awaited,
            )
            for key, via, expected, cause, count in connection.execute(select(*columns))
        ]

    rows: list[Row] = await read(url, work)
    return rows


async def read(url: str, query: Any) -> Any:
    """Return what `query` finds in the ledger, on a connection of its own."""
    store = open_store(url)
    try:
        return await store.read(query)
    finally:
        await store.close()


def read_totals(status: dict[str, Any]) -> Totals:
    """Return the figures of the source in `/api/status`."""
    (source,), (destination,) = status["sources"], status["destinations"]
    losses, listed = source["losses"], source["list"]
    return Totals(
        by_webhook=source["events"]["webhook"],
        by_list=source["events"]["list"],
        expected=losses["expected"],
        missed=losses["missed"],
        recovered=losses["recovered"],
        late=losses["late"],
        duplicates=source["duplicates"],
        found_behind=listed["found_behind_watermark"],
        missing_open=listed["missing_open"],
        unrecoverable=len(source["unrecoverable"]),
        lost=listed["lost"],
        backlog=destination["backlog"],
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
