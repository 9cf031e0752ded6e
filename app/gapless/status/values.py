"""Convert the report to plain values, for `/api/status` and `gapless status --json`. null means unknown."""

from collections.abc import Iterable
from datetime import timedelta
from typing import TypeAlias

from msgspec import to_builtins

from gapless.domain import from_us
from gapless.ledger.budgets import GrantUse
from gapless.ledger.destinations import Pause
from gapless.ledger.snapshot import UnrecoverableEntry
from gapless.status.figures import DESTINATION_FIGURES, SOURCE_FIGURES, Figure, R, Samples, Value
from gapless.status.reading import reading_in_words
from gapless.status.report import (
    DestinationReport,
    Gap,
    ListReport,
    Losses,
    Proof,
    SourceReport,
    StatusReport,
    StreamReport,
)
from gapless.status.troubles import Trouble, is_blind, notes, summary, troubles, verdict

Values: TypeAlias = dict[str, object]


def of_report(report: StatusReport) -> Values:
    """Return the whole report. Times are RFC 3339, durations are seconds, rates are shares of 1."""
    found = troubles(report)
    return {
        "at": report.at,
        "verdict": verdict(found).value,
        "summary": summary(found),
        "troubles": [of_trouble(each) for each in found],
        "store": [{"fault": each.fault.value, "detail": each.detail, "since": each.since} for each in report.store],
        "sources": [of_source(source, found) for source in report.sources],
        "destinations": [of_destination(destination, found) for destination in report.destinations],
    }


def of_trouble(trouble: Trouble) -> Values:
    """Return one trouble."""
    return {
        "kind": trouble.kind.value,
        "severity": trouble.severity.value,
        "source": trouble.source,
        "stream": trouble.stream,
        "destination": trouble.destination,
        "since": trouble.since,
        "text": trouble.text,
        "next": trouble.next,
    }


def of_source(source: SourceReport, found: Iterable[Trouble]) -> Values:
    """Return one source; `found` are the troubles of all sources and destinations."""
    listed = source.listed
    return {
        "name": source.name,
        "verdict": verdict(each for each in found if each.source == source.name).value,
        "blind": is_blind(source),
        "notes": notes(source),
        "provider": source.provider,
        "coverage": source.coverage.value,
        "mode": source.mode.value,
        "state": source.state,
        "reason": source.reason,
        "account": source.account,
        "other_account": source.other_account,
        "livemode": source.livemode,
        "other_mode": source.other_mode,
        "types": list(source.types),
        "types_origin": source.types_origin,
        "subscription": {"healthy": source.subscription_healthy, "reason": source.subscription_reason},
        "clock": {"skew_s": _plain(source.clock_skew), "unverified": source.clock_unverified},
        "silent": source.silent,
        "events": {via.value: count for via, count in source.events.items()},
        "duplicates": source.duplicates,
        "losses": None if source.losses is None else _losses(source.losses),
        "gaps": {window: None if gap is None else _gap(gap) for window, gap in source.gaps.items()},
        "unrecoverable": [_loss(loss) for loss in source.unrecoverable],
        "list": None if listed is None else _listed(listed),
        "streams": [_stream(stream) for stream in source.streams],
        "figures": _figures(SOURCE_FIGURES, source),
    }


def of_destination(destination: DestinationReport, found: Iterable[Trouble]) -> Values:
    """Return one destination; `found` as for a source. `dead_letters` has only the reasons that occur."""
    return {
        "name": destination.name,
        "verdict": verdict(each for each in found if each.destination == destination.name).value,
        "state": destination.state,
        "paused": None if destination.pause is None else _pause(destination.pause),
        "backlog": {state.value: count for state, count in destination.backlog.items()},
        "oldest_pending": destination.oldest_pending,
        "dead_letters": {reason: count for reason, count in destination.dead.items() if count},
        "figures": _figures(DESTINATION_FIGURES, destination),
    }


def _pause(pause: Pause) -> Values:
    return {"since": from_us(pause.since_us), "by": pause.by, "reason": pause.reason}


def _figures(figures: Iterable[Figure[R]], report: R) -> Values:
    """Return every figure by the name of its series; figures with a label have a value for each of its values."""
    return {each.name: _samples(each.samples(report)) for each in figures}


def _samples(samples: Samples) -> object:
    plain = {labels: _plain(value) for labels, value in samples.items()}
    if not plain or () in plain:
        return plain.get(())
    return {label: value for (label,), value in plain.items()}


def _plain(value: Value) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _losses(losses: Losses) -> Values:
    return {
        "expected": losses.expected,
        "missed": losses.missed_in_all,
        "missed_by_cause": {cause.value: count for cause, count in losses.missed.items()},
        "recovered": losses.recovered,
        "late": losses.late,
        "unlisted": losses.unlisted,
    }


def _gap(gap: Gap) -> Values:
    return {"rate": gap.rate, "missed": gap.missed, "expected": gap.expected}


def _proof(proof: Proof) -> Values:
    return {
        "watermark": proof.watermark,
        "complete_up_to": proof.complete_up_to,
        "checked_at": proof.checked_at,
        "last_complete_pass": proof.last_complete_pass,
    }


def _listed(listed: ListReport) -> Values:
    return {
        **_proof(listed.proof),
        "next_pass": listed.next_pass,
        "waiting_until": listed.waiting_until,
        "interval_s": _plain(listed.interval),
        "history_headroom_s": _plain(listed.history_headroom),
        "unpaid_until": listed.unpaid_until,
        "reading": reading_in_words(listed),
        "learned": None if listed.learned is None else {"at": listed.learned_at, **to_builtins(listed.learned)},
        "grant": None if listed.grant is None else _grant(listed.grant),
        "missing_open": listed.missing_open,
        "unreadable_rows": listed.unreadable_rows,
        "lost": listed.lost,
        "found_behind_watermark": listed.behind_watermark,
    }


def _grant(use: GrantUse) -> Values:
    return {
        "granted": use.granted,
        "period_s": use.period.total_seconds(),
        "used": use.used,
        "used_ratio": use.ratio,
        "by_purpose": dict(use.by_purpose),
    }


def _loss(loss: UnrecoverableEntry) -> Values:
    return {
        "id": loss.id,
        "stream": loss.stream,
        "start": from_us(loss.start_us),
        "end": from_us(loss.end_us),
        "reason": loss.reason,
        "acknowledged": None if loss.acknowledged_us is None else _acknowledgement(loss, loss.acknowledged_us),
    }


def _acknowledgement(loss: UnrecoverableEntry, at_us: int) -> Values:
    return {"at": from_us(at_us), "by": loss.acknowledged_by, "reason": loss.acknowledged_reason}


def _stream(stream: StreamReport) -> Values:
    return {
        "name": stream.name,
        "complete_from": stream.complete_from,
        **_proof(stream.proof),
        "last_outcome": stream.last_outcome,
        "parked_reason": stream.parked_reason,
    }
