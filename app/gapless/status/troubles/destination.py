"""What is wrong with a destination: deliveries that are late, held, parked or dead."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from gapless.destinations.contract import FailureReason, HoldReason
from gapless.domain import from_us
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.destinations import Pause
from gapless.status.report import DestinationReport
from gapless.status.troubles.trouble import SET_CLOCK, WAS_AHEAD, Severity, Trouble, TroubleKind, counted

LATE_AFTER: Final = timedelta(minutes=1)
"""Time that a pending delivery may be overdue before it is a trouble."""
LATE_WITHIN: Final = timedelta(hours=1)
"""Time in which every delivery should be made; after that a person is needed."""
LISTED_WITHIN: Final = timedelta(hours=1)
"""Time in which a list should have shown an event that came by webhook; after that a person is needed."""
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
    HoldReason.NOT_LISTED.value: (
        "the provider's list has not shown them",
        "Such an event may be forged, or no list shows it: look at it, then release it by its id.",
    ),
    HoldReason.CONDITION.value: (
        "their condition cannot be evaluated",
        f"Correct `when` for later events. {RELEASE}",
    ),
    HoldReason.KEY_MISSING.value: (
        "sealed with a key that is not there, or changed since",
        "Put the key back into [encryption]: they are sent by themselves. `gapless keys check` says which it is.",
    ),
    HoldReason.RESTORED.value: ("of a time that a restored backup lacks", RELEASE),
}
"""By reason: why deliveries are held, and what to do."""


def of_destination(destination: DestinationReport, now: datetime) -> Iterator[Trouble]:
    """Yield what is wrong with the destination."""
    if destination.state != "active":
        yield from _of_retired(destination)
        return
    name, backlog, oldest = destination.name, destination.backlog, destination.oldest
    bad = partial(Trouble, severity=Severity.TROUBLE, destination=name)
    dead = backlog[DeliveryState.DEAD] - destination.dead.get(FailureReason.ERASED.value, 0)
    if dead:
        yield bad(
            kind=TroubleKind.DEAD_LETTERS,
            since=oldest.get(DeliveryState.DEAD),
            text=f"Not tried any more: {counted(dead, 'dead letter')}.",
            next=f"See `gapless dead list`; when the cause is removed, `gapless dead requeue --destination {name}`.",
        )
    if _waits_for_list(destination, now):
        yield Trouble(
            kind=TroubleKind.DELIVERIES_HELD,
            severity=Severity.IN_HAND,
            destination=name,
            since=oldest.get(DeliveryState.HELD),
            text=f"Waiting until the provider's list shows them: {counted(backlog[DeliveryState.HELD], 'delivery')}.",
            next="Nothing, if it does not last: they are sent once the list was read.",
        )
    elif backlog[DeliveryState.HELD]:
        reasons = [reason for reason in HELD_BECAUSE if destination.held.get(reason)]
        because = "; ".join(HELD_BECAUSE[reason][0] for reason in reasons)
        advice = " ".join(HELD_BECAUSE[reason][1] for reason in reasons)
        yield bad(
            kind=TroubleKind.DELIVERIES_HELD,
            since=oldest.get(DeliveryState.HELD),
            text=f"Waiting for a decision: {counted(backlog[DeliveryState.HELD], 'delivery')}"
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
    yield from (
        _of_late(destination, now) if destination.pause is None else _of_pause(destination, destination.pause, now)
    )
    yield from _of_unconfirmed(destination, now)
    yield from _of_blocked(destination)
    if backlog[DeliveryState.PARKED]:
        yield Trouble(
            kind=TroubleKind.DELIVERIES_PARKED,
            severity=Severity.IN_HAND,
            destination=name,
            since=oldest.get(DeliveryState.PARKED),
            text=f"Parked, because the source is not configured any more: "
            f"{counted(backlog[DeliveryState.PARKED], 'delivery')}.",
            next="Nothing, if they are not wanted; they are sent if the source is configured again.",
        )


def _waits_for_list(destination: DestinationReport, now: datetime) -> bool:
    """Return True if everything that is held may still be shown by the list."""
    held, since = destination.backlog[DeliveryState.HELD], destination.oldest.get(DeliveryState.HELD)
    is_young = since is not None and now - since <= LISTED_WITHIN
    return bool(held) and destination.held.get(HoldReason.NOT_LISTED.value) == held and is_young


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
        text=f"Waiting for too long: the oldest of {counted(destination.backlog[DeliveryState.PENDING], 'delivery')}.",
        next=look if is_old else wait,
    )


def _of_pause(destination: DestinationReport, pause: Pause, now: datetime) -> Iterator[Trouble]:
    """Yield that it is paused: a trouble once deliveries have waited for longer than they should."""
    late, waiting = destination.late_since, destination.backlog[DeliveryState.PENDING]
    is_old = late is not None and now - late > LATE_WITHIN
    why = f" ({pause.reason})" if pause.reason else ""
    yield Trouble(
        kind=TroubleKind.DESTINATION_PAUSED,
        severity=Severity.TROUBLE if is_old else Severity.IN_HAND,
        destination=destination.name,
        since=from_us(pause.since_us),
        text=f"Paused by {pause.by}{why}; {counted(waiting, 'delivery')} {'waits' if waiting == 1 else 'wait'}.",
        next=f"When it may have them: `gapless destination resume {destination.name}`.",
    )


def _of_unconfirmed(destination: DestinationReport, now: datetime) -> Iterator[Trouble]:
    since = destination.unconfirmed_since
    if since is None or not destination.unconfirmed_again:
        return
    yield Trouble(
        kind=TroubleKind.RECEIPTS_LATE,
        severity=Severity.TROUBLE if now - since > LATE_WITHIN else Severity.IN_HAND,
        destination=destination.name,
        since=since,
        text="Answered 2xx and sent again, because no receipt came in time: "
        f"{counted(destination.unconfirmed_again, 'delivery')}.",
        next="See whether its jobs run, and whether they send receipts to /api/v1/receipts; each is sent again "
        "until it is confirmed, or a dead letter.",
    )


def _of_blocked(destination: DestinationReport) -> Iterator[Trouble]:
    blocked = destination.blocked
    if blocked is None:
        return
    name = f"all of {blocked.source}" if blocked.object_key is None else f'"{blocked.object_key}" of {blocked.source}'
    more = f" and {counted(blocked.count - 1, 'other')}" if blocked.count > 1 else ""
    yield Trouble(
        kind=TroubleKind.OBJECTS_BLOCKED,
        severity=Severity.TROUBLE,
        destination=destination.name,
        since=from_us(blocked.since_us),
        text=f"Nothing is sent any more of {name}{more}, because an event before waits for a decision.",
        next=f"See `gapless event show {blocked.key}`; when the cause is removed, requeue it (`gapless dead requeue "
        f"{blocked.key}`, `--held` if it is held), or give it up (`gapless dead discard {blocked.key} --note …`).",
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
            text=f"It is not configured any more, and is still owed {counted(owed, 'delivery')}.",
            next="Nothing, if they are not wanted; they are sent if it is configured again.",
        )
