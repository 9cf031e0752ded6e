"""Give a source back after a run, with the time at which it is due again and the reason for that."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gapless.domain import Mode, Purpose, from_us, span_us, to_us
from gapless.ledger import Connection, leases, looks, passes, silence, sources, streams
from gapless.ledger.looks import StoredLook
from gapless.ledger.passes import PassKind
from gapless.ledger.streams import Stream
from gapless.reconcile.agenda import Rhythm, as_look, as_stored, next_due
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.urgency import Look, Reason, first_look, next_look, silence_due, silent_look, sooner
from gapless_reconcilers.kit.contract import OWN_STREAM

log = logging.getLogger(__name__)
LONGEST_FAILURE_WAIT = timedelta(minutes=5)
"""The longest wait after runs in a row in which nothing could be read, and which may go well the next time."""
CHECK_EVERY = timedelta(hours=1)
"""Time between two runs of a source that is never listed: only its endpoint is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What the next run depends on."""

    found: bool
    """Expected events were found, or events that a listing lacks."""
    is_down: bool
    """No stream could be read."""
    needs_operator: bool
    """Only a person can repair it."""
    look: StoredLook | None
    """The look out of turn that this run was; None: it was none."""
    unpaid: Mapping[Purpose, datetime] = field(default_factory=dict)
    """When the purse can pay for each reading that was put off, by what it was for; empty: none was."""


def release(connection: Connection, leased: LeasedSource, outcome: RunOutcome, now: datetime) -> None:
    """Release the lease with the time of the next run. Raises `LeaseLost`."""
    leases.fence(connection, leased.lease)  # first, so that no look is noted by another process meanwhile
    source_id = leased.source.id
    row = sources.source_row(connection, source_id)
    rhythm = rhythm_of(leased)
    read = _in_turn(streams.streams(connection, source_id))
    beat = min((rhythm.beat(each.name, now) for each in read), default=rhythm.pace.shortest)
    look = _next_look(connection, leased, outcome, now, beat)
    looks.note(connection, source_id, as_stored(look))
    due = _due(leased, outcome, look, _paid(outcome, next_due(read, rhythm, now)), now)
    left = passes.unfinished(connection, source_id)
    is_made_due = row["next_pass_us"] > leased.lease.taken_us or leased.is_replaced
    if is_made_due or (leased.stopping.is_set() and left):
        due = now  # it was made due meanwhile, or its key was replaced, or it was interrupted
    goes_on = [from_us(each.next_attempt_us) for each in left if each.kind is PassKind.DEMAND]
    due = max(now, min([due, *goes_on]))
    if leased.client.skew is not None:
        sources.note_skew(connection, source_id, span_us(leased.client.skew))
    until = leased.client.waits_until
    leases.release(
        connection,
        leased.lease,
        next_pass_us=to_us(due),
        wait_us=0 if is_made_due else max(span_us(due - now), 1),  # 0: everything is looked at
        interval_us=span_us(beat),
        waiting_until_us=None if until is None else to_us(until),
        unpaid_until_us=to_us(min(outcome.unpaid.values())) if outcome.unpaid else None,
    )


def rhythm_of(leased: LeasedSource) -> Rhythm:
    """Return how often the source's streams are read."""
    reckoning = leased.memory.reckoning
    plan = None if reckoning is None else reckoning.plan
    return Rhythm(pace=leased.policy.pace, plan=plan, history=leased.capabilities.history)


def due_again(connection: Connection, leased: LeasedSource, now: datetime) -> datetime:
    """Return when the source is to be read again, if nothing happens."""
    read = _in_turn(streams.streams(connection, leased.source.id))
    return next_due(read, rhythm_of(leased), now)


def _in_turn(known: list[Stream]) -> list[Stream]:
    """Return the streams that are read in their turn: a parked one only with the checks of the source."""
    return [each for each in known if each.parked_reason is None or each.name == OWN_STREAM]


def _due(leased: LeasedSource, outcome: RunOutcome, look: Look | None, due: datetime, now: datetime) -> datetime:
    memory = leased.memory
    memory.failures = memory.failures + 1 if outcome.is_down else 0
    if outcome.is_down and outcome.needs_operator and look is not None:
        return look.due
    if outcome.is_down:
        shortest = max(leased.policy.pace.shortest, timedelta(seconds=1))
        longest = max(LONGEST_FAILURE_WAIT, shortest)
        return now + min(shortest * (1 << min(memory.failures - 1, 10)), longest)
    if leased.source.mode is Mode.WEBHOOK:
        return now + CHECK_EVERY
    return due if look is None else max(now, min(due, look.due))


def _paid(outcome: RunOutcome, due: datetime) -> datetime:
    """Return when the next heartbeat is read: one that was put off, when it can be paid for."""
    return max(due, outcome.unpaid.get(Purpose.HEARTBEAT, due))


def _put_off(outcome: RunOutcome, made: Look | None, now: datetime) -> Look | None:
    """Return the look that could not be paid for, at the time when it can; None: it was made, or is not made up for."""
    urgent = [at for purpose, at in outcome.unpaid.items() if purpose in (Purpose.START, Purpose.URGENT)]
    if not urgent:
        return None
    due = min(urgent)
    if made is None:
        return Look(reason=Reason.START, due=due, wait=due - now)
    return Look(reason=made.reason, due=due, wait=made.wait, put_off=due - now)


def _next_look(
    connection: Connection, leased: LeasedSource, outcome: RunOutcome, now: datetime, beat: timedelta
) -> Look | None:
    """Return the next look out of turn: for a reason that this run showed, or that was there before."""
    row, stored = sources.source_row(connection, leased.source.id), looks.read(connection, leased.source.id)
    made, shortest = as_look(outcome.look), leased.policy.pace.shortest
    waiting = as_look(stored) if stored != outcome.look else None
    if waiting is not None and waiting.reason is Reason.SILENCE:
        waiting = None  # a webhook came since then, or may have: it is reckoned anew
    if outcome.is_down and outcome.needs_operator:
        return _after(made, Reason.KEY_REJECTED, now, timedelta.max, shortest)
    if outcome.is_down:
        return sooner(made, waiting)
    if (put_off := _put_off(outcome, made, now)) is not None:
        look: Look | None = put_off
    elif outcome.found:
        look = _after(made, Reason.FIND, now, beat, shortest)
    elif row["subscription_healthy"] is False and (waiting is None or waiting.reason is not Reason.ENDPOINT):
        look = _after(made, Reason.ENDPOINT, now, beat, shortest)
    else:
        look = None if made is None else next_look(made, now, beat, goes_on=False)
    return sooner(sooner(look, waiting), _silence_look(connection, leased, now))


def _after(made: Look | None, reason: Reason, now: datetime, beat: timedelta, shortest: timedelta) -> Look | None:
    """Return the look for a reason that holds: after one for the same reason, or the first."""
    if made is not None and made.reason is reason:
        return next_look(made, now, beat, shortest, goes_on=True)
    return first_look(reason, now, beat, shortest)


def expected_silence(connection: Connection, leased: LeasedSource, now: datetime) -> float | None:
    """Return the webhooks that should have come since the last one, if that is worth a look now; else None."""
    heard = _heard(connection, leased)
    if heard is None:
        return None
    rates, since, looked = heard
    return silent_look(silence.expected(rates, since, now), looked)


def _silence_look(connection: Connection, leased: LeasedSource, now: datetime) -> Look | None:
    """Return the look that is due if no webhook comes until then; None: webhooks are not expected, or not soon."""
    heard = _heard(connection, leased)
    if heard is None:
        return None
    rates, since, looked = heard
    due = silence_due(lambda at: silence.expected(rates, since, at), looked, now)
    return None if due is None else Look(reason=Reason.SILENCE, due=due, wait=due - now)


def _heard(connection: Connection, leased: LeasedSource) -> tuple[list[float], datetime, float] | None:
    """Return the rates of webhooks, when the last one came, and how many were expected when that was looked into."""
    source, memory = leased.source, leased.memory
    row = sources.source_row(connection, source.id)
    if source.mode is not Mode.HYBRID or memory.reckoning is None or row["last_webhook_us"] is None:
        return None
    if memory.heard_us != row["last_webhook_us"]:
        memory.heard_us, memory.silence = row["last_webhook_us"], 0.0
    return list(memory.reckoning.webhooks), from_us(row["last_webhook_us"]), memory.silence
