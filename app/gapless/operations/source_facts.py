"""What is known of one source beside its report: its rhythm, its next look, its sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.domain import HOUR_US, HOURS_OF_WEEK, RHYTHM_FROM, Source, from_us, to_us
from gapless.ledger import Connection, looks, passes, sources, tallies
from gapless.ledger.passes import PassKind
from gapless.reconcile.heartbeat import learned_rates

SHOWN_HOURS = 3
"""Busiest and quietest hours that are shown."""
DAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")
"""The days of the week, from that of 1 January 1970 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HourRate:
    """The events to expect in one hour of the week, in UTC: `Mon 14:00`."""

    hour: str
    events: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What is known of a source. None: unknown."""

    lookback: timedelta | None
    """How far deep readings reach back, where a sweep has widened it; None: as configured."""
    known_from: datetime | None
    """The first hour whose events show its rhythm; None: it has had none in eight weeks."""
    busiest: Sequence[HourRate]
    quietest: Sequence[HourRate]
    look: str | None
    """The reason of the next look out of turn; None: none is wanted."""
    look_due: datetime | None
    last_webhook: datetime | None
    last_sweep: datetime | None
    """When the last sweep ended; None: none has."""
    sweep_pieces: int
    """Pieces of the sweeps that are under way; 0: none is."""
    sweep_pieces_done: int


def read_source_facts(connection: Connection, source: Source, now: datetime) -> SourceFacts:
    """Return what the ledger knows of the source at `now`."""
    row, look = sources.source_row(connection, source.id), looks.read(connection, source.id)
    known_from, rates = _rhythm(connection, source, now)
    sweeps = [each for each in passes.unfinished(connection, source.id) if each.kind is PassKind.SWEEP]
    pieces = [piece for each in sweeps for piece in passes.slices(connection, each.id)]
    return SourceFacts(
        lookback=None if row["lookback_us"] is None else timedelta(microseconds=row["lookback_us"]),
        known_from=known_from,
        busiest=rates[:SHOWN_HOURS],
        quietest=rates[-SHOWN_HOURS:],
        look=None if look is None else look.reason,
        look_due=None if look is None else from_us(look.due_us),
        last_webhook=_time(row["last_webhook_us"]),
        last_sweep=_time(row["last_sweep_us"]),
        sweep_pieces=len(pieces),
        sweep_pieces_done=sum(each.done for each in pieces),
    )


def _rhythm(connection: Connection, source: Source, now: datetime) -> tuple[datetime | None, list[HourRate]]:
    """Return since when the rhythm is known, and the hours of the week, the busiest first; none, if it is unknown."""
    by_hour = tallies.by_hour(connection, source.id, to_us(now - RHYTHM_FROM) // HOUR_US)
    if not any(by_hour.values()):
        return None, []
    known_from = max(source.start, from_us(min(by_hour) * HOUR_US))
    rates = learned_rates(by_hour, min(known_from, now), now)
    ordered = sorted(range(HOURS_OF_WEEK), key=lambda hour: -rates[hour])
    return known_from, [HourRate(hour=_hour(each), events=rates[each]) for each in ordered]


def _hour(hour: int) -> str:
    return f"{DAYS[hour // 24]} {hour % 24:02}:00"


def _time(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)
