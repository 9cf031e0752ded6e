"""The times that decide what a pass may record, believe and claim."""

from datetime import UTC, datetime, timedelta

from gapless.domain import align_down, from_us, span_us, to_us
from gapless.ledger import watermarks, witnesses
from gapless.ledger.passes import Pass, Slice
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Ages, Circumstances
from gapless.reconcile.window import claimed_up_to, recorded_up_to
from gapless_reconcilers.kit.contract import Coverage


def lists_states(leased: LeasedSource) -> bool:
    """Return True if the list shows the last state of objects instead of events."""
    return leased.capabilities.coverage is Coverage.RESOURCE_STATE


def settled_before_us(leased: LeasedSource, row: Pass) -> int:
    """Return the time before which a webhook is settled: the listing of this pass must show its event."""
    return row.started_us - span_us(leased.capabilities.grace)


def listed_before(leased: LeasedSource, row: Pass) -> datetime:
    """Return the time at the provider before which an event was due in the list when the pass began."""
    capabilities, skew = leased.capabilities, leased.client.skew or timedelta(0)
    return align_down(from_us(row.started_us) - skew - capabilities.grace, capabilities.resolution)


def ages(leased: LeasedSource, row: Pass) -> Ages:
    """Return the times that tell the ages of the rows of a page that was read just now."""
    exact = leased.capabilities.exact_times
    return Ages(
        settled=recorded_up_to(leased.client.provider_now, leased.settle),
        witnesses=listed_before(leased, row) if exact else datetime.max.replace(tzinfo=UTC),
    )


def witness_span(leased: LeasedSource, stream_id: int, row: Pass, part: Slice) -> witnesses.WitnessSpan:
    """Return what a webhook event must be for the listing of `part` to have to show it."""
    capabilities = leased.capabilities
    # Unless times are exact, webhook and list may differ by up to the grace about when an event occurred.
    edge_us = 0 if capabilities.exact_times else span_us(capabilities.grace)
    return witnesses.WitnessSpan(
        stream_id=stream_id,
        start_us=part.start_us + edge_us,
        end_us=min(part.end_us, to_us(listed_before(leased, row))) - edge_us,
        before_us=settled_before_us(leased, row),
        last_states=lists_states(leased),
    )


def limits(leased: LeasedSource, row: Pass, circumstances: Circumstances, lookback: timedelta) -> watermarks.Limits:
    """Return what the watermark does not pass: absent events, and the earlier now of ours and the provider's.

    That is less the grace, and in whole units of the provider's times: later, the list may still grow. Nor does it
    pass the time from which on the list proves nothing.
    """
    capabilities, proven_until = leased.capabilities, circumstances.proven_until
    unit = capabilities.resolution
    latest = claimed_up_to(from_us(row.started_us) - leased.client.behind, capabilities.grace, unit)
    if proven_until is not None:
        latest = min(latest, align_down(from_us(proven_until), unit))
    return watermarks.Limits(
        latest_us=to_us(latest),
        lookback_us=span_us(lookback),
        absences_allowed=leased.source.absences_allowed,
        margin_us=0 if capabilities.exact_times else span_us(capabilities.grace),
        unit_us=span_us(unit),
    )
