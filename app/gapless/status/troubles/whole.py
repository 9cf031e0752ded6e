"""What is wrong with the store, the configuration or a process: it concerns all sources and destinations."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from gapless.status.report import StatusReport, StoreFault
from gapless.status.troubles.trouble import CLOCK_WRONG_FROM, SET_CLOCK, Severity, Trouble, TroubleKind
from gapless.text import format_span

OF_STORE: Final = {
    StoreFault.READ_ONLY: "The database allows no writes, so webhooks are answered 503 and nothing is recorded",
    StoreFault.LOCKED: "Another program holds a lock on the ledger, so webhooks are answered 503",
    StoreFault.REPLACED: "The ledger's file is not the one that Gapless has open, so webhooks are answered 503",
    StoreFault.UNAVAILABLE: "Nothing can be recorded, so webhooks are answered 503",
    StoreFault.LOG_GROWS: "The write-ahead log of the ledger cannot start over and grows",
    StoreFault.CANNOT_SEAL: "Payloads cannot be sealed, so webhooks are answered 503 and nothing is recorded",
    StoreFault.KEY_MISSING: "Payloads are sealed with a key that is not configured, or is another one now, and wait",
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
    StoreFault.CANNOT_SEAL: "Put the key back into [encryption], with the same id; `gapless keys check` says what "
    "needs it. To stop sealing on purpose, keep the keys and set seals = false.",
    StoreFault.KEY_MISSING: "Put the key back into [encryption], with the same id. What is owed is held until then, "
    "and sent by itself.",
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


def of_whole(report: StatusReport) -> Iterator[Trouble]:
    """Yield what is wrong with the whole."""
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
    yield from _of_clocks(report)


def _of_clocks(report: StatusReport) -> Iterator[Trouble]:
    """Yield the receivers whose clock is wrong: on PostgreSQL each judges signatures by its own machine's."""
    for each in report.clock_offsets:
        if abs(each.offset) >= CLOCK_WRONG_FROM:
            yield Trouble(
                kind=TroubleKind.CLOCK_WRONG,
                severity=Severity.TROUBLE,
                text=f"The clock of process {each.holder} is {format_span(abs(each.offset))} "
                f"{'ahead of' if each.offset > timedelta(0) else 'behind'} the database's: it may refuse genuine "
                "webhooks as too old or too new.",
                next=SET_CLOCK,
            )
