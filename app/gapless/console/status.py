"""The standing as plain values: what `/api/status` sends and `gapless status --json` prints. null means unknown."""

from datetime import timedelta

from gapless.console.standing import (
    DestinationStanding,
    Gap,
    Listed,
    Losses,
    Proof,
    SourceStanding,
    Standing,
    StreamStanding,
)
from gapless.domain import from_us
from gapless.ledger.stats import Loss

Value = dict[str, object]


def of_standing(standing: Standing) -> Value:
    """Everything. Times are RFC 3339, lengths of time seconds, rates shares of 1."""
    return {
        "at": standing.at,
        "sources": [of_source(source) for source in standing.sources],
        "destinations": [of_destination(destination) for destination in standing.destinations],
    }


def of_source(source: SourceStanding) -> Value:
    """One source."""
    listed = source.listed
    return {
        "name": source.name,
        "provider": source.provider,
        "coverage": source.coverage.value,
        "mode": source.mode.value,
        "state": source.state,
        "reason": source.reason,
        "types": list(source.types),
        "types_origin": source.types_origin,
        "subscription": {"healthy": source.subscription_healthy, "reason": source.subscription_reason},
        "silent": source.silent,
        "events": {via.value: count for via, count in source.events.items()},
        "duplicates": source.duplicates,
        "losses": None if source.losses is None else _losses(source.losses),
        "gaps": {window: None if gap is None else _gap(gap) for window, gap in source.gaps.items()},
        "list": None if listed is None else _listed(listed),
        "streams": [_stream(stream) for stream in source.streams],
    }


def of_destination(destination: DestinationStanding) -> Value:
    """One destination. `dead_letters` has only the reasons that occur."""
    return {
        "name": destination.name,
        "state": destination.state,
        "backlog": {state.value: count for state, count in destination.backlog.items()},
        "oldest_pending": destination.oldest_pending,
        "dead_letters": {reason: count for reason, count in destination.dead.items() if count},
    }


def _losses(losses: Losses) -> Value:
    return {
        "expected": losses.expected,
        "missed": losses.missed_in_all,
        "missed_by_cause": {cause.value: count for cause, count in losses.missed.items()},
        "recovered": losses.recovered,
        "late": losses.late,
        "unlisted": losses.unlisted,
    }


def _gap(gap: Gap) -> Value:
    return {"rate": gap.rate, "missed": gap.missed, "expected": gap.expected}


def _proof(proof: Proof) -> Value:
    return {
        "watermark": proof.watermark,
        "complete_up_to": proof.complete_up_to,
        "checked_at": proof.checked_at,
        "last_complete_pass": proof.last_complete_pass,
    }


def _listed(listed: Listed) -> Value:
    return {
        **_proof(listed.proof),
        "next_pass": listed.next_pass,
        "interval_s": _seconds(listed.interval),
        "history_headroom_s": _seconds(listed.history_headroom),
        "budget_remaining": listed.budget_remaining,
        "missing_open": listed.missing_open,
        "found_behind_watermark": listed.behind_watermark,
        "unrecoverable": [_loss(loss) for loss in listed.unrecoverable],
    }


def _loss(loss: Loss) -> Value:
    return {
        "stream": loss.stream,
        "start": from_us(loss.start_us),
        "end": from_us(loss.end_us),
        "reason": loss.reason,
    }


def _stream(stream: StreamStanding) -> Value:
    return {
        "name": stream.name,
        "complete_from": stream.complete_from,
        **_proof(stream.proof),
        "last_outcome": stream.last_outcome,
        "parked_reason": stream.parked_reason,
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
