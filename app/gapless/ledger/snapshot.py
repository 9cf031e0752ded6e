"""Reads every number behind metrics and status in one consistent snapshot.

It draws no conclusions: `status.evaluation` decides what the numbers prove and what remains unknown.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, func, literal_column, select

from gapless.domain import Source, span_us, to_us
from gapless.ledger import (
    absences,
    backlogs,
    budgets,
    configurations,
    destinations,
    learned,
    leases,
    ordering,
    passes,
    silence,
    tallies,
)
from gapless.ledger.absences import AbsenceCounts
from gapless.ledger.accounts import Accounts
from gapless.ledger.backlogs import Backlog, Unconfirmed
from gapless.ledger.configurations import OlderProcess
from gapless.ledger.destinations import Pause
from gapless.ledger.engine import dialect
from gapless.ledger.learned import Learned
from gapless.ledger.leases import ClockOffset
from gapless.ledger.ordering import Blocked
from gapless.ledger.passes import FailingPass
from gapless.ledger.streams import Stream
from gapless.ledger.tables import MISSING, SOURCE, STREAM, UNRECOVERABLE
from gapless.ledger.tallies import Totals
from gapless.ledger.unreadable import REASON

UNRECOVERED: Final[ColumnElement[bool]] = literal_column("missing.state IN ('open', 'lost')")
"""A literal, because a partial index serves only the text of its own condition."""
WINDOWS: Final[Mapping[str, timedelta]] = MappingProxyType(
    {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
)
"""The windows of gap rates, by the value of the label `window`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecoverableEntry:
    """A recorded interval `[start_us, end_us)` of one stream for which the provider can no longer prove anything."""

    id: int
    stream: str
    start_us: int
    end_us: int
    reason: str
    recorded_us: int
    acknowledged_us: int | None = None
    """The time at which a person acknowledged it; None: nobody has."""
    acknowledged_by: str | None = None
    acknowledged_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingCounts:
    """Counts of the events of one stream that exist at the provider and are not recorded."""

    open: int = 0
    """Still retried."""
    unrecovered: int = 0
    """Expected events that are open or lost, and count as missed: missed and not recovered."""
    oldest_open_us: int | None = None
    """The time at which the oldest open event occurred."""
    found_us: int | None = None
    """The time at which the first open event was found, other than of unreadable rows."""
    unreadable: int = 0
    """Those of the open ones that are rows of the list which cannot be read."""
    unreadable_found_us: int | None = None
    """The time at which the first of these was found."""
    lost: int = 0
    """Events that the provider no longer has, acknowledged or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSnapshot:
    """Everything that the ledger holds about one source. Times are microseconds; None: not yet known."""

    source: Source
    state: str
    state_us: int | None
    reason: str | None
    types: tuple[str, ...]
    types_origin: str
    subscription_healthy: bool | None
    subscription_reason: str | None
    subscription_good_us: int | None
    accounts: Accounts
    livemode: bool | None
    """The mode of the source; None: its provider has no modes."""
    interval_us: int | None
    next_pass_us: int
    wait_us: int
    """The wait that ends at the next pass."""
    skew_us: int | None
    """The ledger's clock less the provider's."""
    has_clock: bool
    """The database has a clock of its own."""
    waiting_until_us: int | None = None
    streams: tuple[Stream, ...]
    missing: Mapping[int, MissingCounts]
    """By stream id; a stream without missing events has no entry."""
    absences: Mapping[int, AbsenceCounts]
    """By stream id; a stream whose list lacks no event has no entry."""
    losses: tuple[UnrecoverableEntry, ...]
    failing: tuple[FailingPass, ...] = ()
    totals: Totals
    windows: Mapping[str, Totals]
    """Sums over the hours that touch `[watermark - window, watermark)`."""
    grant_use: budgets.GrantUse | None
    learned_us: int | None = None
    """When the plan of its reading was last made."""
    learned: Learned | None = None
    unpaid_until_us: int | None = None
    heard: silence.WebhookHistory | None
    quarantine_expired: int = 0
    """Refused webhooks that may be genuine, and were purged unjudged since a person looked."""
    quarantine_expired_us: int | None = None
    """The time at which the first of them was purged."""

    @property
    def watermark_us(self) -> int:
        """The watermark of the stream that lags most."""
        return min(stream.watermark_us for stream in self.streams)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSnapshot:
    """The deliveries that one destination still owes."""

    name: str
    state: str
    backlog: tuple[Backlog, ...]
    pause: Pause | None = None
    blocked: Blocked | None = None
    """The objects whose next delivery waits for a person; None: there are none."""
    unconfirmed: Unconfirmed | None = None
    """What was answered 2xx and waits for a receipt; None: nothing does."""
    unproven: int = 0
    """Deliveries that wait until the list is complete up to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSnapshot:
    """All numbers, read at one moment."""

    sources: tuple[SourceSnapshot, ...]
    destinations: tuple[DestinationSnapshot, ...]
    older_processes: tuple[OlderProcess, ...] = ()
    """Running processes that were started with an older configuration."""
    clock_offsets: tuple[ClockOffset, ...] = ()
    """How far the machines of the running receivers are ahead of the database's clock."""


def take_snapshot(connection: Connection, sources: Sequence[Source], now: datetime) -> LedgerSnapshot:
    """Return the numbers of `sources` at `now`, and of every destination that is active or still owes deliveries."""
    dialect.one_snapshot(connection)
    ids = [source.id for source in sources]
    rows = {row["id"]: row for row in connection.execute(select(SOURCE).where(SOURCE.c.id.in_(ids))).mappings()}
    streams, missing, losses = _streams(connection, ids), _missing(connection, ids), _losses(connection, ids)
    absent = absences.counts(connection, ids)
    return LedgerSnapshot(
        sources=tuple(
            _source(connection, source, rows[source.id], streams[source.id], missing, absent, losses[source.id], now)
            for source in sources
            if streams[source.id]
        ),
        destinations=_destinations(connection, now),
        older_processes=tuple(configurations.older_processes(connection)),
        clock_offsets=tuple(leases.clock_offsets(connection)),
    )


def _source(
    connection: Connection,
    source: Source,
    row: RowMapping,
    streams: Sequence[Stream],
    missing: Mapping[int, MissingCounts],
    absent: Mapping[int, AbsenceCounts],
    losses: Sequence[UnrecoverableEntry],
    now: datetime,
) -> SourceSnapshot:
    watermark_us = min(stream.watermark_us for stream in streams)
    types, origin = _types(source, row)
    learned_us, facts = learned.read(connection, source.id) or (None, None)
    return SourceSnapshot(
        source=source,
        state=row["state"],
        state_us=row["state_us"],
        reason=row["reason"],
        types=types,
        types_origin=origin,
        subscription_healthy=row["subscription_healthy"],
        subscription_reason=row["subscription_reason"],
        subscription_good_us=row["subscription_good_us"],
        accounts=Accounts(row["account"], row["other_account"]),
        livemode=row["livemode"],
        interval_us=row["interval_us"],
        next_pass_us=row["next_pass_us"],
        wait_us=row["wait_us"] or row["interval_us"] or 0,
        skew_us=row["skew_us"],
        has_clock=dialect.has_clock(connection.dialect.name),
        waiting_until_us=row["waiting_until_us"],
        streams=tuple(streams),
        missing={stream.id: missing[stream.id] for stream in streams if stream.id in missing},
        absences={stream.id: absent[stream.id] for stream in streams if stream.id in absent},
        losses=tuple(losses),
        failing=passes.failing(connection, source.id),
        totals=tallies.totals(connection, source.id),
        windows={
            name: tallies.totals(connection, source.id, watermark_us - span_us(width), watermark_us)
            for name, width in WINDOWS.items()
        },
        grant_use=budgets.grant_use(connection, source.provider.budget_scope(), to_us(now)),
        heard=silence.read_heard(connection, source.id, source.silence, now),
        learned_us=learned_us,
        learned=facts,
        unpaid_until_us=row["unpaid_until_us"],
        quarantine_expired=row["quarantine_expired"],
        quarantine_expired_us=row["quarantine_expired_us"],
    )


def _types(source: Source, row: RowMapping) -> tuple[tuple[str, ...], str]:
    """Return the subscribed types and their origin: the configured ones, else those that any process read last."""
    if source.types_origin.value == "config" or row["types"] is None:
        return source.types.patterns, source.types_origin.value
    return tuple(json.loads(row["types"])), row["types_origin"]


def _streams(connection: Connection, source_ids: Sequence[int]) -> Mapping[int, list[Stream]]:
    """Return the streams of each source, its own first."""
    found: defaultdict[int, list[Stream]] = defaultdict(list)
    query = select(STREAM).where(STREAM.c.source_id.in_(source_ids)).order_by(STREAM.c.source_id, STREAM.c.name)
    for row in connection.execute(query).mappings():
        found[row["source_id"]].append(Stream(**row))
    return found


def _missing(connection: Connection, source_ids: Sequence[int]) -> Mapping[int, MissingCounts]:
    """Return the counts by stream id, of streams that have missing events."""
    is_open = MISSING.c.state == "open"
    is_unreadable = and_(is_open, MISSING.c.reason == REASON)
    is_lost = MISSING.c.state == "lost"
    query = (
        select(
            MISSING.c.stream_id,
            func.sum(case((is_open, 1), else_=0)).label("open"),
            func.sum(case((and_(MISSING.c.expected, MISSING.c.counted), 1), else_=0)).label("unrecovered"),
            func.min(case((is_open, MISSING.c.occurred_us))).label("oldest_open_us"),
            func.min(case((and_(is_open, ~is_unreadable), MISSING.c.found_us))).label("found_us"),
            func.sum(case((is_unreadable, 1), else_=0)).label("unreadable"),
            func.min(case((is_unreadable, MISSING.c.found_us))).label("unreadable_found_us"),
            func.sum(case((is_lost, 1), else_=0)).label("lost"),
        )
        .where(MISSING.c.source_id.in_(source_ids), UNRECOVERED)
        .group_by(MISSING.c.stream_id)
    )
    return {
        row.stream_id: MissingCounts(
            open=int(row.open),
            unrecovered=int(row.unrecovered),
            oldest_open_us=row.oldest_open_us,
            found_us=row.found_us,
            unreadable=int(row.unreadable),
            unreadable_found_us=row.unreadable_found_us,
            lost=int(row.lost),
        )
        for row in connection.execute(query)
    }


def _losses(connection: Connection, source_ids: Sequence[int]) -> Mapping[int, list[UnrecoverableEntry]]:
    """Return the unrecoverable intervals of each source, oldest first."""
    found: defaultdict[int, list[UnrecoverableEntry]] = defaultdict(list)
    columns = [UNRECOVERABLE.c[each.name] for each in fields(UnrecoverableEntry) if each.name != "stream"]
    query = select(STREAM.c.source_id, STREAM.c.name.label("stream"), *columns).join_from(
        UNRECOVERABLE, STREAM, STREAM.c.id == UNRECOVERABLE.c.stream_id
    )
    ordered = query.where(STREAM.c.source_id.in_(source_ids)).order_by(UNRECOVERABLE.c.start_us, UNRECOVERABLE.c.id)
    for row in connection.execute(ordered).mappings():
        found[row["source_id"]].append(
            UnrecoverableEntry(**{name: value for name, value in row.items() if name != "source_id"})
        )
    return found


def _destinations(connection: Connection, now: datetime) -> tuple[DestinationSnapshot, ...]:
    owed: defaultdict[str, list[Backlog]] = defaultdict(list)
    for part in backlogs.read(connection, to_us(now)):
        owed[part.destination].append(part)
    blocked = {each.destination: each for each in ordering.blocked(connection)}
    return tuple(
        DestinationSnapshot(
            name=each.name,
            state=each.state,
            backlog=tuple(owed[each.name]),
            pause=each.pause,
            blocked=blocked.get(each.name),
            unconfirmed=backlogs.unconfirmed(connection, each.id),
            unproven=backlogs.unproven(connection, each.id),
        )
        for each in destinations.every(connection)
        if each.state == "active" or owed[each.name]
    )
