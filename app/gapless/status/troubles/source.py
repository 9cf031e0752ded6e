"""What is wrong with a source, apart from the comparison with its list."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from gapless.domain import from_us
from gapless.ledger.watermarks import EVENT_LOST
from gapless.status.report import SourceReport
from gapless.status.troubles.comparison import of_list
from gapless.status.troubles.trouble import (
    CLOCK_WRONG_FROM,
    SET_CLOCK,
    WAS_AHEAD,
    Severity,
    Trouble,
    TroubleKind,
    counted,
)
from gapless.text import format_span, format_time

FRESH_WINDOW: Final = "1h"
"""The window in which a single missed event is already reported."""
MUCH_MISSED: Final = 0.01
"""Share of a window from which on missed events are reported, even if they are recovered."""


def of_source(source: SourceReport, now: datetime) -> Iterator[Trouble]:
    """Yield what is wrong with the source."""
    yield from _of_state(source)
    yield from _of_clock(source)
    yield from _of_webhooks(source)
    yield from _of_unrecoverable(source)
    yield from _of_quarantine(source)
    if source.listed is not None:
        yield from of_list(source, source.listed, now)


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
    return f" The same holds for {counted(count, 'other time')}." if count else ""


def _of_quarantine(source: SourceReport) -> Iterator[Trouble]:
    if source.quarantine_expired:
        webhooks = counted(source.quarantine_expired, "refused webhook")
        yield Trouble(
            kind=TroubleKind.QUARANTINE_EXPIRED,
            severity=Severity.TROUBLE,
            source=source.name,
            since=source.quarantine_expired_at,
            text=f"Purged from the quarantine before anybody released or judged them: {webhooks} that may be genuine.",
            next=f"`gapless quarantine list --source {source.name}` says why, and what they claimed. Correct the "
            f"cause, read the list (`gapless source pass {source.name} --since 7d`), then {_acknowledge(source)}.",
        )


def _acknowledge(source: SourceReport) -> str:
    return f'`gapless source acknowledge {source.name} --reason "…"`'
