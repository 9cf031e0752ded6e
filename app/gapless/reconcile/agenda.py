"""Decide which streams of a source are read now, for what reason, and when the source is due next. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.clock import is_due
from gapless.domain import Purpose, from_us, span_us, to_us
from gapless.ledger.looks import StoredLook
from gapless.ledger.streams import Stream
from gapless.reconcile.heartbeat import LONGEST
from gapless.reconcile.pace import OVERDUE, Pace, latest_next_pass, next_reading
from gapless.reconcile.reading_plan import ReadingPlan
from gapless.reconcile.urgency import Look, Reason

ABOUT = 0.1
"""Share of its interval by which a stream may be read early, so that streams are read together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often the streams of a source are read: by its pace, and if that is adaptive, by its plan."""

    pace: Pace
    plan: ReadingPlan | None = None
    """None: nothing is known yet, and streams are read as often as they may be."""
    history: timedelta | None = None
    """How far the provider's list reaches back; None: without limit."""

    @property
    def reads_siblings(self) -> bool:
        """Return True if streams are read again soon after a webhook."""
        return self.plan is None or self.plan.siblings

    def beat(self, stream: str, now: datetime) -> timedelta:
        """Return the time between two readings of the stream, as of `now`."""
        if self.pace.long_poll:
            return timedelta(0)
        if not self.pace.adaptive or self.plan is None:
            return self.pace.shortest
        return self.plan.heartbeats.interval(stream, now)

    def next_beat(self, stream: Stream, now: datetime) -> datetime:
        """Return when the stream is read next, if nothing happens; now, if it never was.

        That is by the time at which its history begins to run out, and every quarter of an hour from then on.
        """
        if stream.head_us is None:
            return now
        head, beat = from_us(stream.head_us), self.beat(stream.name, now)
        latest = self.latest(stream)
        if latest is not None:
            beat = min(beat, max(latest - head, LONGEST))
        return now if is_due(to_us(head + beat), span_us(beat), to_us(now)) else head + beat

    def latest(self, stream: Stream) -> datetime | None:
        """Return the time at which the stream's history begins to run out; None: it never does."""
        return latest_next_pass(self.history, from_us(stream.read_to_us))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What there is to read now: the streams, and for what their requests are."""

    streams: Sequence[Stream]
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Why a run of a source began."""

    everything: bool
    """It was made due: at a start, on demand, or because something changed."""
    is_first: bool
    """This process has not read it yet."""
    look: StoredLook | None
    """The look out of turn that is noted for it; None: there is none."""
    heard: Collection[int]
    """Ids of the streams of which webhooks came since the last reading."""


def choose(streams: Sequence[Stream], rhythm: Rhythm, occasion: Occasion, now: datetime) -> Wanted:
    """Return the streams to read now: all of them if there is a reason to look, else those whose turn it is.

    Those whose history runs out come first and alone, because nothing limits what they may cost.
    """
    beats = in_turn(streams, rhythm, now)
    running_out = [each for each in beats.streams if _runs_out(each, rhythm, now)]
    if running_out:
        return Wanted(streams=running_out, purpose=Purpose.HISTORY)
    if occasion.is_first:
        return Wanted(streams=streams, purpose=Purpose.START)
    if occasion.everything or is_look_due(occasion.look, now):
        is_doubted = occasion.look is not None and occasion.look.reason == Reason.DOUBTED
        return Wanted(streams=streams, purpose=Purpose.DOUBT if is_doubted else Purpose.URGENT)
    heard = occasion.heard if rhythm.reads_siblings else ()
    siblings = [each for each in streams if each.id in heard and each not in beats.streams]
    purpose = Purpose.HEARTBEAT if beats.streams else Purpose.SIBLING
    return Wanted(streams=[*beats.streams, *siblings], purpose=purpose)


def in_turn(streams: Sequence[Stream], rhythm: Rhythm, now: datetime) -> Wanted:
    """Return the streams whose heartbeat is due, for when what was wanted out of turn cannot be paid for."""
    return Wanted(streams=[each for each in streams if _is_its_turn(each, rhythm, now)], purpose=Purpose.HEARTBEAT)


def wishes(wanted: Wanted, rhythm: Rhythm, now: datetime, *, details_wait: bool = False) -> dict[Purpose, datetime]:
    """Return from when the wanted reading may be paid for as which purpose: an overdue heartbeat as an urgent look.

    `details_wait`: missing events cannot be paid for either, so that a heartbeat may be overdue for longer: what it
    finds would only wait too.
    """

    def overdue(stream: Stream) -> timedelta:
        return rhythm.pace.longest if details_wait else OVERDUE * rhythm.beat(stream.name, now)

    found = {wanted.purpose: now}
    if wanted.purpose is Purpose.HEARTBEAT:
        late = [from_us(each.head_us) + overdue(each) for each in wanted.streams if each.head_us]
        found[Purpose.URGENT] = max(min(late, default=now), now)
        latest = [each for each in map(rhythm.latest, wanted.streams) if each is not None]
        if latest:
            found[Purpose.HISTORY] = max(min(latest), now)
    return found


def is_look_due(look: StoredLook | None, now: datetime) -> bool:
    """Return True if a look out of turn is wanted by now."""
    return look is not None and is_due(look.due_us, look.wait_us, to_us(now))


def next_due(streams: Iterable[Stream], rhythm: Rhythm, now: datetime) -> datetime:
    """Return when the source is due next without a look: with the first heartbeat of a stream."""
    return min((rhythm.next_beat(each, now) for each in streams), default=now + rhythm.pace.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """When webhooks came since a source was last read."""

    newest: datetime
    oldest: datetime
    read_at: datetime
    due: datetime
    """When the source is due without siblings."""


def is_sibling_due(heard: Heard, settle: timedelta, shortest: timedelta, now: datetime) -> bool:
    """Return True if the siblings of webhooks are looked for now."""
    due = next_reading(
        last=heard.read_at,
        beat=max(heard.due - heard.read_at, timedelta(0)),
        settle=settle,
        shortest=shortest,
        webhook=heard.newest,
        unread=heard.oldest,
    )
    return due <= now


def as_stored(look: Look | None) -> StoredLook | None:
    """Return the look as it is stored."""
    if look is None:
        return None
    return StoredLook(
        reason=look.reason.value,
        due_us=to_us(look.due),
        wait_us=span_us(look.wait + look.put_off),
        put_off_us=span_us(look.put_off),
    )


def as_look(stored: StoredLook | None) -> Look | None:
    """Return a stored look."""
    if stored is None:
        return None
    put_off = timedelta(microseconds=stored.put_off_us)
    wait = timedelta(microseconds=stored.wait_us) - put_off
    return Look(reason=Reason(stored.reason), due=from_us(stored.due_us), wait=wait, put_off=put_off)


def _runs_out(stream: Stream, rhythm: Rhythm, now: datetime) -> bool:
    latest = rhythm.latest(stream)
    return latest is not None and latest <= now


def _is_its_turn(stream: Stream, rhythm: Rhythm, now: datetime) -> bool:
    early = rhythm.beat(stream.name, now) * ABOUT
    return rhythm.next_beat(stream, now) <= now + early
