"""Decide what is wrong: the one judgement, with how bad it is, since when, and what to do next. Pure.

The command and its exit code, the API and the page all show `troubles(report)`, so they cannot differ.
The texts are here and nowhere else. The limits are those of `config/prometheus/alerts.yml`.

Three things are deliberately no trouble:

- A source that is never compared with a list, because of its mode or because its provider has none. Nothing failed,
  and whoever configured it knows. It does not change the verdict, or a deliberate push-only source would keep
  `gapless status` at exit code 1 for ever. `is_blind` marks it, and it is never shown as complete.
- A gap that was found and closed, if it is small and old: the product did its work. While webhooks are being lost
  (in the last hour, or 1 % and more of a window), the source is in hand, never good.
- Counts that only grow (late, unlisted, found behind the watermark): they describe the past; alerts watch the rise.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final

from gapless.destinations.contract import HoldReason
from gapless.domain import EventMode, TypesOrigin, from_us
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.passes import FailingPass
from gapless.ledger.watermarks import EVENT_LOST
from gapless.status.evaluation import DISBELIEVED
from gapless.status.report import DestinationReport, ListReport, SourceReport, StatusReport, StoreFault, StreamReport
from gapless.text import format_span, format_time

STALLED_AFTER: Final = timedelta(hours=1)
"""Time without a complete pass, beyond `STALLED_INTERVALS`, after which the proof is stalled."""
STALLED_INTERVALS: Final = 3
"""Intervals between passes, beyond `STALLED_AFTER`."""
MISSING_WITHIN: Final = timedelta(minutes=30)
"""Time in which a known event should be recorded: about five attempts."""
LATE_AFTER: Final = timedelta(minutes=1)
"""Time that a pending delivery may be overdue before it is a trouble."""
LATE_WITHIN: Final = timedelta(hours=1)
"""Time in which every delivery should be made; after that a person is needed."""
FRESH_WINDOW: Final = "1h"
"""The window in which a single missed event is already reported."""
CLOCK_WRONG_FROM: Final = timedelta(minutes=1)
"""Difference of our clock from the provider's from which on it is a trouble."""
MUCH_MISSED: Final = 0.01
"""Share of a window from which on missed events are reported, even if they are recovered."""
READ: Final = frozenset({None, "clean", "found", "contradicted"})
"""Outcomes of a pass that are no trouble."""


class Severity(StrEnum):
    """How bad a trouble is, the worst first."""

    TROUBLE = "trouble"
    """A person is needed."""
    UNKNOWN = "unknown"
    """It could be known, but is not."""
    IN_HAND = "in_hand"
    """Not good yet, but it is repaired without a person."""
    GOOD = "good"

    @property
    def rank(self) -> int:
        """Return the place in the order; 0 is the worst."""
        return list(Severity).index(self)

    @property
    def is_well(self) -> bool:
        """Return True if nobody is needed: exit code 0."""
        return self in (Severity.GOOD, Severity.IN_HAND)


class TroubleKind(StrEnum):
    """The kinds of trouble: everything that can be wrong."""

    STORE_READ_ONLY = "store_read_only"
    STORE_LOCKED = "store_locked"
    STORE_REPLACED = "store_replaced"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_LOG_GROWS = "store_log_grows"
    NO_SOURCE = "no_source"
    SOURCE_UNKNOWN = "source_unknown"
    CONFIGURATION_OLDER = "configuration_older"
    OTHER_ACCOUNT = "other_account"
    SOURCE_PARKED = "source_parked"
    SOURCE_RETIRED = "source_retired"
    STREAM_PARKED = "stream_parked"
    LIST_SUSPECT = "list_suspect"
    LIST_CONTRADICTED = "list_contradicted"
    LIST_UNREADABLE = "list_unreadable"
    READ_FAILED = "read_failed"
    DEMAND_FAILED = "demand_failed"
    PROVIDER_WAITS = "provider_waits"
    NEVER_COMPARED = "never_compared"
    PROOF_STALLED = "proof_stalled"
    HISTORY_RUNS_OUT = "history_runs_out"
    BUDGET_SPENT = "budget_spent"
    UNRECOVERABLE = "unrecoverable"
    EVENTS_LOST = "events_lost"
    ROWS_UNREADABLE = "rows_unreadable"
    EVENTS_MISSING = "events_missing"
    WEBHOOKS_LOST = "webhooks_lost"
    ENDPOINT_OFF = "endpoint_off"
    SILENT = "silent"
    CLOCK_WRONG = "clock_wrong"
    TIMES_AHEAD = "times_ahead"
    DEAD_LETTERS = "dead_letters"
    DELIVERIES_HELD = "deliveries_held"
    DELIVERIES_LATE = "deliveries_late"
    DELIVERIES_PARKED = "deliveries_parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong, and where."""

    kind: TroubleKind
    severity: Severity
    text: str
    """What is wrong: a sentence."""
    next: str
    """What to do: a sentence, with the command to run."""
    source: str | None = None
    stream: str | None = None
    """The stream, or the first of several; None: the source's own, or the whole source."""
    destination: str | None = None
    since: datetime | None = None
    """Since when it may have been wrong; None if the ledger does not show it."""

    @property
    def where(self) -> str:
        """Return the source and stream, or the destination; "gapless" if it concerns all of it."""
        if self.source is not None:
            return f"{self.source} {self.stream}" if self.stream else self.source
        return self.destination or "gapless"


def troubles(report: StatusReport) -> list[Trouble]:
    """Return everything that is wrong, the worst first, then the oldest. Empty: all is well, as far as can be known."""
    found = [*_of_whole(report)]
    for source in report.sources:
        found += _of_source(source, report.at)
    for destination in report.destinations:
        found += _of_destination(destination, report.at)
    return sorted(found, key=lambda each: (each.severity.rank, each.since is None, each.since or report.at))


def verdict(found: Iterable[Trouble]) -> Severity:
    """Return the worst severity among `found`, which may be all troubles or those of one source or destination."""
    return min((each.severity for each in found), key=lambda each: each.rank, default=Severity.GOOD)


def summary(found: Iterable[Trouble]) -> str:
    """Return the verdict in one sentence."""
    counts = Counter(each.severity for each in found)
    words = {Severity.TROUBLE: "wrong", Severity.UNKNOWN: "not known", Severity.IN_HAND: "in hand"}
    parts = [
        f"{counts[severity]} {'is' if counts[severity] == 1 else 'are'} {words[severity]}"
        for severity in words
        if counts[severity]
    ]
    return ", ".join(parts) if parts else "Nothing is wrong"


def is_blind(source: SourceReport) -> bool:
    """Return True if nothing can be proven of the source, whatever happens: it is never compared with a list."""
    return source.listed is None


def notes(source: SourceReport) -> list[str]:
    """Return remarks about the source that are no troubles."""
    found = []
    if is_blind(source):
        found.append("There is no list to compare with: lost webhooks cannot be seen.")
    if source.losses is not None and source.types_origin == TypesOrigin.ASSUMED.value:
        found.append(
            "It is assumed that every type is subscribed, so too much may count as missed; set types, or let the key "
            "read the endpoint."
        )
    if source.other_mode and source.livemode is not None:
        other = EventMode.of(livemode=not source.livemode).value
        found.append(
            f"{_counted(source.other_mode, 'event')} of {other} mode came by webhook: recorded, and delivered only to "
            f'destinations with modes = ["{other}"].'
        )
    if source.clock_unverified:
        found.append(
            "Our clock is unverified: the provider has not said what time it is, and the ledger is on this machine. "
            "Make sure that the clock is synchronised."
        )
    return found


OF_STORE: Final = {
    StoreFault.READ_ONLY: "The database allows no writes, so webhooks are answered 503 and nothing is recorded",
    StoreFault.LOCKED: "Another program holds a lock on the ledger, so webhooks are answered 503",
    StoreFault.REPLACED: "The ledger's file is not the one that Gapless has open, so webhooks are answered 503",
    StoreFault.UNAVAILABLE: "Nothing can be recorded, so webhooks are answered 503",
    StoreFault.LOG_GROWS: "The write-ahead log of the ledger cannot start over and grows",
}
NEXT_OF_STORE: Final = {
    StoreFault.READ_ONLY: "Name the primary server in the store url, or let this one write "
    "(default_transaction_read_only, a standby, a full disk). Gapless connects again by itself.",
    StoreFault.LOCKED: "End that program. PostgreSQL shows it in pg_stat_activity; with SQLite it is whatever has the "
    "file open in a write transaction, such as a sqlite3 shell (`fuser` names it).",
    StoreFault.REPLACED: "Put the file back, and Gapless goes on by itself. To go on with the file that is there now, "
    "start `gapless serve` again.",
    StoreFault.UNAVAILABLE: "Look at the database and its log, and run `gapless check`. Gapless connects again by "
    "itself.",
    StoreFault.LOG_GROWS: "End the program that reads the ledger in one long transaction, such as a sqlite3 shell or a "
    "backup (`fuser` names it).",
}


def _of_store(report: StatusReport) -> Iterator[Trouble]:
    for each in report.store:
        yield Trouble(
            kind=TroubleKind(f"store_{each.fault}"),
            severity=Severity.TROUBLE,
            text=f"{OF_STORE[each.fault]}: {each.detail.rstrip('.')}.",
            next=NEXT_OF_STORE[each.fault],
            since=each.since,
        )


def _of_whole(report: StatusReport) -> Iterator[Trouble]:
    yield from _of_store(report)
    if not report.sources and not report.unknown_sources:
        yield Trouble(
            kind=TroubleKind.NO_SOURCE,
            severity=Severity.UNKNOWN,
            text="No source is configured: nothing is received, and nothing is compared.",
            next="Add a [[source]] to the configuration; `gapless check` looks at it.",
        )
    for name in report.unknown_sources:
        yield Trouble(
            kind=TroubleKind.SOURCE_UNKNOWN,
            severity=Severity.UNKNOWN,
            source=name,
            text="It is configured, but the ledger does not know it yet.",
            next="Start `gapless serve` with this configuration, or start it again.",
        )

    for each in report.older_processes:
        yield Trouble(
            kind=TroubleKind.CONFIGURATION_OLDER,
            severity=Severity.TROUBLE,
            text=f"The process {each.holder} was started with an older configuration, and did not "
            f"{', '.join(each.withheld) or 'change anything'}.",
            next="Start it again with the current configuration; or, to go back to its own, run "
            "`gapless config activate` with that and start it again.",
        )


def _of_source(source: SourceReport, now: datetime) -> Iterator[Trouble]:
    yield from _of_state(source)
    yield from _of_clock(source)
    yield from _of_webhooks(source)
    yield from _of_unrecoverable(source)
    if source.listed is not None:
        yield from _of_streams(source)
        yield from _of_demanded(source)
        yield from _of_absences(source)
        yield from _of_proof(source, source.listed, now)
        yield from _of_missing(source, source.listed, now)


def _of_state(source: SourceReport) -> Iterator[Trouble]:
    bad = partial(Trouble, severity=Severity.TROUBLE, source=source.name, since=source.state_since)
    if source.state == "retired":
        yield bad(
            kind=TroubleKind.SOURCE_RETIRED,
            text="It is retired: nothing is received or compared.",
            next="Start `gapless serve` again with this configuration.",
        )
    elif source.other_account is not None:
        yield bad(
            kind=TroubleKind.OTHER_ACCOUNT,
            text=f"Its key reads account {source.other_account}, and the source is that of {source.account}: its list "
            "is not read, and listed events are not delivered.",
            next=f"Use a key of {source.account}; or, if the other account is meant, run "
            f"`gapless source accept-account {source.name}`.",
        )
    elif source.state != "active":
        yield bad(
            kind=TroubleKind.SOURCE_PARKED,
            text=f"It is {source.state}: {source.reason or 'no reason is written down'}.",
            next=f"Run `gapless check`, correct what it finds, then `gapless source pass {source.name}`.",
        )


WAS_AHEAD: Final = "A clock was ahead when they were stored, or ours is behind now."
SET_CLOCK: Final = (
    "Synchronise the clock (NTP) of this machine and of the database, then see what `gapless check` says of the clocks."
)


def _of_clock(source: SourceReport) -> Iterator[Trouble]:
    skew = source.clock_skew
    if skew is not None and abs(skew) >= CLOCK_WRONG_FROM:
        yield Trouble(
            kind=TroubleKind.CLOCK_WRONG,
            severity=Severity.TROUBLE,
            source=source.name,
            text=f"Our clock is {format_span(abs(skew))} {'ahead of' if skew > timedelta(0) else 'behind'} the "
            "provider's.",
            next=SET_CLOCK,
        )
    if source.ahead:
        yield Trouble(
            kind=TroubleKind.TIMES_AHEAD,
            severity=Severity.TROUBLE,
            source=source.name,
            text=f"Stored times lie in the future: {', '.join(source.ahead)}. {WAS_AHEAD}",
            next=f"{SET_CLOCK} `gapless serve` does at once what it would wait for.",
        )


def _of_webhooks(source: SourceReport) -> Iterator[Trouble]:
    bad = partial(Trouble, severity=Severity.TROUBLE, source=source.name)
    if source.subscription_healthy is False:
        yield bad(
            kind=TroubleKind.ENDPOINT_OFF,
            since=source.subscription_good_at,
            text=f"The provider does not send to us: {source.subscription_reason or 'it gives no reason'}.",
            next=f"Run `gapless source repair {source.name}`, or correct the endpoint at the provider.",
        )
    if source.silent:
        yield bad(
            kind=TroubleKind.SILENT,
            since=source.heard_at,
            text="No webhook has come for longer than is usual for this source.",
            next="Run `gapless check`: the provider may have disabled our endpoint, or something blocks its requests.",
        )
    for window, gap in source.gaps.items():
        if gap is not None and gap.missed and (window == FRESH_WINDOW or gap.missed >= MUCH_MISSED * gap.expected):
            yield Trouble(
                kind=TroubleKind.WEBHOOKS_LOST,
                severity=Severity.IN_HAND,
                source=source.name,
                text=f"{gap.missed} of {gap.expected} events of the last {window} were missed by webhook.",
                next=f"Nothing, if it does not go on: `gapless event list --missed --source {source.name}` shows them.",
            )
            break


NEXT_OF_STREAM: Final = {
    TroubleKind.STREAM_PARKED: "Run `gapless check`, correct the key or options, then `gapless source pass {source}`.",
    TroubleKind.LIST_SUSPECT: "See whether the key reads this account and all its events: `gapless check`, then "
    "`gapless source pass {source}`.",
    TroubleKind.LIST_UNREADABLE: "The provider may have changed its API: look at the log line pass_failed, and for a "
    "newer release.",
    TroubleKind.READ_FAILED: "Nothing: it is tried again automatically.",
}


def _of_streams(source: SourceReport) -> Iterator[Trouble]:
    """Yield one trouble for all streams that cannot be read for the same reason."""
    alike: defaultdict[tuple[TroubleKind, str], list[StreamReport]] = defaultdict(list)
    for stream in source.streams:
        found = _reason_unread(stream)
        if found is not None:
            alike[found].append(stream)
    for (kind, text), streams in alike.items():
        more = f" The same holds for {_counted(len(streams) - 1, 'other stream')}." if len(streams) > 1 else ""
        yield Trouble(
            kind=kind,
            severity=Severity.IN_HAND if kind is TroubleKind.READ_FAILED else Severity.TROUBLE,
            source=source.name,
            stream=streams[0].name or None,
            since=min((each for each in (s.proof.last_complete_pass for s in streams) if each), default=None),
            text=text + more,
            next=NEXT_OF_STREAM[kind].format(source=source.name),
        )


def _reason_unread(stream: StreamReport) -> tuple[TroubleKind, str] | None:
    if stream.parked_reason is not None:
        return TroubleKind.STREAM_PARKED, f"Not read: {stream.parked_reason}."
    if stream.last_outcome in DISBELIEVED:
        if stream.last_outcome == "unexpected_shape":
            return TroubleKind.LIST_UNREADABLE, "The provider's list has a shape that is not known."
        return TroubleKind.LIST_SUSPECT, "The provider's list shows none of the events that came by webhook."
    if stream.last_outcome not in READ:
        why = f": {stream.last_error}" if stream.last_error else ""
        return TroubleKind.READ_FAILED, f"The last pass ended early: {stream.last_outcome}{why}."
    return None


def _of_demanded(source: SourceReport) -> Iterator[Trouble]:
    """Yield one trouble for all passes on demand that failed for the same reason."""
    alike: defaultdict[tuple[bool, str], list[FailingPass]] = defaultdict(list)
    for each in source.failing:
        alike[each.is_given_up, each.error].append(each)
    for (is_given_up, error), failing in alike.items():
        first = failing[0]
        start, end = format_time(from_us(first.start_us)), format_time(from_us(first.end_us))
        more = f" The same holds for {_counted(len(failing) - 1, 'other pass')}." if len(failing) > 1 else ""
        cancel = f"`gapless pass cancel {first.id}`"
        again = f"`gapless source pass {source.name} --since {from_us(first.start_us):%Y-%m-%dT%H:%M:%SZ}`"
        yield Trouble(
            kind=TroubleKind.DEMAND_FAILED,
            severity=Severity.TROUBLE if is_given_up else Severity.IN_HAND,
            source=source.name,
            stream=first.stream or None,
            since=from_us(min(each.started_us for each in failing)),
            text=f"Pass {first.id} on demand, from {start} to {end}, "
            f"{'was given up' if is_given_up else 'fails and is tried again'}: {error}.{more}",
            next=f"Remove the cause and ask again: {again}; or leave that time unread: {cancel}."
            if is_given_up
            else f"Nothing: no other pass waits for it. To leave that time unread: {cancel}.",
        )


LOOKED_FOR: Final = 2
"""Times that an absent event is looked for in other cuts of the list before a person is needed."""


def _of_absences(source: SourceReport) -> Iterator[Trouble]:
    """Yield a trouble for each stream whose list lacks events that came by webhook."""
    for stream in source.streams:
        absent = stream.absences
        if not absent.open or absent.first_us is None:
            continue
        others = absent.open - len(absent.keys)
        named = ", ".join(absent.keys) + (f" and {_counted(others, 'other')}" if others else "")
        is_searched = absent.tries >= LOOKED_FOR
        accept = f'`gapless event accept-unlisted {source.name} {absent.keys[0]} --reason "…"`'
        yield Trouble(
            kind=TroubleKind.LIST_CONTRADICTED,
            severity=Severity.TROUBLE if is_searched else Severity.IN_HAND,
            source=source.name,
            stream=stream.name or None,
            since=None if absent.found_us is None else from_us(absent.found_us),
            text=f"The provider's list lacks {_counted(absent.open, 'event')} that came by webhook: {named}. "
            f"It may lack others, so nothing is proven from {format_time(from_us(absent.first_us))} on.",
            next=f"Look for {absent.keys[0]} at the provider. If its list cannot show it, let it pass: {accept}."
            if is_searched
            else "Nothing: the list is read again in other ways.",
        )


def _of_proof(source: SourceReport, listed: ListReport, now: datetime) -> Iterator[Trouble]:
    read_now = f"`gapless source pass {source.name}`"
    bad = partial(Trouble, severity=Severity.TROUBLE, source=source.name)
    last = listed.proof.last_complete_pass
    if last is None:
        yield Trouble(
            kind=TroubleKind.NEVER_COMPARED,
            severity=Severity.UNKNOWN,
            source=source.name,
            text="Not compared with the provider's list yet.",
            next=f"Wait for the first pass, or ask for it: {read_now}.",
        )
    elif now - last > STALLED_AFTER + STALLED_INTERVALS * (listed.interval or timedelta()):
        yield bad(
            kind=TroubleKind.PROOF_STALLED,
            since=last,
            text="The list was not read completely for too long: losses since then are not seen.",
            next=f"See whether `gapless serve` runs and what `gapless check` says, then {read_now}.",
        )
    if listed.waiting_until is not None:
        yield Trouble(
            kind=TroubleKind.PROVIDER_WAITS,
            severity=Severity.IN_HAND,
            source=source.name,
            text=f"Waiting until {format_time(listed.waiting_until)}, because the provider said so: nothing is read "
            "before.",
            next="Nothing, if it is rare; else lower requests_per_second, or ask the provider for a higher limit.",
        )
    if listed.is_running_out:
        yield bad(
            kind=TroubleKind.HISTORY_RUNS_OUT,
            since=listed.proof.watermark,
            text="The provider soon forgets events that were not compared yet.",
            next=f"Find out why the list is not read (`gapless check`), then {read_now}.",
        )
    if listed.budget_remaining == 0:
        yield Trouble(
            kind=TroubleKind.BUDGET_SPENT,
            severity=Severity.IN_HAND,
            source=source.name,
            text="The provider's read allowance is used up: passes are rare until its period is over.",
            next="Nothing, unless the provider grants more: then set read_budget to that.",
        )


def _of_unrecoverable(source: SourceReport) -> Iterator[Trouble]:
    lost = [loss for loss in source.not_acknowledged if loss.reason == EVENT_LOST]
    unread = [loss for loss in source.not_acknowledged if loss.reason != EVENT_LOST]
    if lost:
        yield Trouble(
            kind=TroubleKind.EVENTS_LOST,
            severity=Severity.TROUBLE,
            source=source.name,
            stream=lost[0].stream or None,
            since=from_us(min(loss.recorded_us for loss in lost)),
            text=f"The provider listed what it no longer has, and the ledger lacks it: an event of "
            f"{format_time(from_us(lost[0].start_us))}.{_more(len(lost) - 1)}",
            next=f"The log line event_lost names each; look them up by other means, then {_acknowledge(source)}.",
        )
    if unread:
        first, *others = unread
        start, end = format_time(from_us(first.start_us)), format_time(from_us(first.end_us))
        yield Trouble(
            kind=TroubleKind.UNRECOVERABLE,
            severity=Severity.TROUBLE,
            source=source.name,
            stream=first.stream or None,
            since=from_us(min(loss.recorded_us for loss in unread)),
            text=f"Losses from {start} to {end} can never be found: {first.reason}.{_more(len(others))}",
            next=f"Compare that time by other means, then {_acknowledge(source)}.",
        )


def _more(count: int) -> str:
    return f" The same holds for {_counted(count, 'other time')}." if count else ""


def _acknowledge(source: SourceReport) -> str:
    return f'`gapless source acknowledge {source.name} --reason "…"`'


def _of_missing(source: SourceReport, listed: ListReport, now: datetime) -> Iterator[Trouble]:
    if listed.unreadable_rows:
        yield Trouble(
            kind=TroubleKind.ROWS_UNREADABLE,
            severity=Severity.TROUBLE,
            source=source.name,
            since=listed.unreadable_since,
            text=f"The list shows {_counted(listed.unreadable_rows, 'row')} that cannot be read: it is not known "
            "whether their events are recorded.",
            next=f"See `gapless missing list --source {source.name}` and look for a newer release, or "
            f'`gapless missing dismiss KEY --source {source.name} --reason "…"`.',
        )
    known = listed.missing_open - listed.unreadable_rows
    if known:
        is_old = listed.missing_since is None or now - listed.missing_since > MISSING_WITHIN
        wait, look = (
            "Nothing: they are requested one by one.",
            f"See `gapless missing list --source {source.name}`: it has the last error of each.",
        )
        yield Trouble(
            kind=TroubleKind.EVENTS_MISSING,
            severity=Severity.TROUBLE if is_old else Severity.IN_HAND,
            source=source.name,
            since=listed.missing_since,
            text=f"Not recorded yet: {_counted(known, 'known event')}.",
            next=look if is_old else wait,
        )


def _counted(count: int, noun: str) -> str:
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else many}"


RELEASE: Final = "Release them: `gapless dead requeue --held --destination {destination}`."
HELD_BECAUSE: Final = {
    HoldReason.VERSION_MISMATCH.value: (
        "of another API version than the endpoint's",
        f"Set on_version_mismatch. {RELEASE}",
    ),
    HoldReason.OTHER_ACCOUNT.value: (
        "listed while the key read another account",
        "`gapless source accept-account` sends or dismisses those of another account.",
    ),
    HoldReason.RESTORED.value: ("of a time that a restored backup lacks", RELEASE),
}
"""By reason: why deliveries are held, and what to do."""


def _of_destination(destination: DestinationReport, now: datetime) -> Iterator[Trouble]:
    if destination.state != "active":
        yield from _of_retired(destination)
        return
    name, backlog, oldest = destination.name, destination.backlog, destination.oldest
    bad = partial(Trouble, severity=Severity.TROUBLE, destination=name)
    if backlog[DeliveryState.DEAD]:
        yield bad(
            kind=TroubleKind.DEAD_LETTERS,
            since=oldest.get(DeliveryState.DEAD),
            text=f"Not tried any more: {_counted(backlog[DeliveryState.DEAD], 'dead letter')}.",
            next=f"See `gapless dead list`; when the cause is removed, `gapless dead requeue --destination {name}`.",
        )
    if backlog[DeliveryState.HELD]:
        reasons = [reason for reason in HELD_BECAUSE if destination.held.get(reason)]
        because = "; ".join(HELD_BECAUSE[reason][0] for reason in reasons)
        advice = " ".join(HELD_BECAUSE[reason][1] for reason in reasons)
        yield bad(
            kind=TroubleKind.DELIVERIES_HELD,
            since=oldest.get(DeliveryState.HELD),
            text=f"Waiting for a decision: {_counted(backlog[DeliveryState.HELD], 'delivery')}"
            f"{f' ({because})' if because else ''}.",
            next=f"See `gapless dead list --held`. {advice or RELEASE}".format(destination=name),
        )
    if destination.ahead:
        yield bad(
            kind=TroubleKind.TIMES_AHEAD,
            since=destination.oldest_pending,
            text=f"Deliveries are due further ahead than they are to wait. {WAS_AHEAD}",
            next=f"{SET_CLOCK} `gapless serve` does at once what it would wait for.",
        )
    yield from _of_late(destination, now)
    if backlog[DeliveryState.PARKED]:
        yield Trouble(
            kind=TroubleKind.DELIVERIES_PARKED,
            severity=Severity.IN_HAND,
            destination=name,
            since=oldest.get(DeliveryState.PARKED),
            text=f"Parked, because the source is not configured any more: "
            f"{_counted(backlog[DeliveryState.PARKED], 'delivery')}.",
            next="Nothing, if they are not wanted; they are sent if the source is configured again.",
        )


def _of_late(destination: DestinationReport, now: datetime) -> Iterator[Trouble]:
    late = destination.late_since
    if late is None or now - late <= LATE_AFTER:
        return
    is_old = now - late > LATE_WITHIN
    wait = "Nothing, if it is just being deployed: they are tried again automatically."
    look = "See whether it answers, and whether `gapless serve` runs; gapless_deliveries_total counts its answers."
    yield Trouble(
        kind=TroubleKind.DELIVERIES_LATE,
        severity=Severity.TROUBLE if is_old else Severity.IN_HAND,
        destination=destination.name,
        since=late,
        text=f"Waiting for too long: the oldest of {_counted(destination.backlog[DeliveryState.PENDING], 'delivery')}.",
        next=look if is_old else wait,
    )


def _of_retired(destination: DestinationReport) -> Iterator[Trouble]:
    """Yield the deliveries still owed to a destination that was removed from the configuration; nothing else counts."""
    owed = sum(destination.backlog.values())
    if owed:
        yield Trouble(
            kind=TroubleKind.DELIVERIES_PARKED,
            severity=Severity.IN_HAND,
            destination=destination.name,
            since=min(destination.oldest.values(), default=None),
            text=f"It is not configured any more, and is still owed {_counted(owed, 'delivery')}.",
            next="Nothing, if they are not wanted; they are sent if it is configured again.",
        )
