"""The worker of one destination: claims the deliveries that are due, attempts them and settles them.

Each run settles finished attempts and claims more deliveries, in one commit; results that arrive meanwhile wait for the
next run. While attempts end quickly, it claims ahead, so that none waits for a commit. What is queued is bounded in
number, in bytes and by the time for which its lease lasts; what waited too long is given back. So a backlog of any size
costs the same.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random

import msgspec

from gapless.deliver import answers, breaker, retry
from gapless.deliver.breaker import Breaker
from gapless.deliver.routing import Destination
from gapless.destinations.contract import (
    Delivery,
    Failed,
    FailureReason,
    Held,
    HoldReason,
    Result,
    Withdrawn,
    event_id,
)
from gapless.domain import Release, Via, from_us, span_us
from gapless.ledger import dead_letters, deliveries, ordering, proof
from gapless.ledger.deliveries import DeliveryClaim, DeliveryState, Settlement, StoredEvent, Switch
from gapless.ledger.engine import Conflict, StoreError, StoreUnavailable
from gapless.runtime import Runtime
from gapless.token_bucket import TokenBucket

CLAIM_MAX = 64
"""Most deliveries claimed at once by a destination that claims none ahead."""
AHEAD_MAX = 512
"""Most deliveries that are queued, so that no commit takes long."""
SETTLED_AT_ONCE, GATHER = 64, timedelta(milliseconds=4)
"""Results wait for so many others, and no longer than that, so that a commit is worth its cost."""
QUEUED_MOST = timedelta(seconds=10)
"""Time that a lease lasts for the queue. What has waited for so long is given back."""
LEASE_MARGIN = timedelta(seconds=10)
"""Time that a lease lasts beyond an attempt's timeout and the queue: to settle."""
QUICK, SLOW = timedelta(seconds=0.5), timedelta(seconds=2)
"""Claims that follow each other within the first reach twice as far ahead the next time; beyond the second, half."""
POLL = timedelta(seconds=1)
"""Longest sleep. If a notice of another replica is lost, its deliveries are found after it."""
LOOK = timedelta(milliseconds=500)
"""Least time between two looks whether the destination is paused, while nothing is claimed."""
OUTCOMES = ("delivered", "answered", "retry", "dead", "held", "withdrawn")
"""Every value of the label `outcome`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A claimed delivery with its event. Its lease ends at `until_us`, in elapsed time."""

    claim: DeliveryClaim
    event: StoredEvent
    until_us: int


@dataclass(slots=True)
class InFlight:
    """What is queued, the attempts under way, and the settlements that are not yet written."""

    queue: deque[Loaded] = field(default_factory=deque)
    attempts: set[asyncio.Task[None]] = field(default_factory=set)
    settlements: list[Settlement] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reach:
    """How many deliveries are queued, and when some were claimed last, in elapsed microseconds."""

    ahead: int
    claimed_us: int


def reach_after(reach: Reach, at_us: int, concurrency: int, *, has_more: bool) -> Reach:
    """Return the reach after a claim: as far as the queue lasts for about a second. `has_more`: as many were due."""
    passed_us, ahead = at_us - reach.claimed_us, reach.ahead
    if has_more and passed_us < span_us(QUICK):
        ahead = min(2 * ahead, AHEAD_MAX)
    elif passed_us > span_us(SLOW):
        ahead = ahead // 2
    return Reach(ahead=max(ahead, concurrency), claimed_us=at_us)


class DestinationWorker:
    """Delivers to one destination until `stop`."""

    def __init__(self, destination: Destination, runtime: Runtime, rng: Random) -> None:
        self._destination = destination
        self._runtime = runtime
        self._rng = rng
        self._in_flight = InFlight()
        self._breaker = Breaker()
        self._switch = Switch()
        self._rested_us = 0
        """When the destination last was paused or had a rest."""
        self._looked_us = 0
        """When the switch was last read, in elapsed time."""
        rate = destination.rate
        self._bucket = None if rate is None else TokenBucket(burst=max(rate, 1), per_second=rate)
        self._awake = asyncio.Event()
        self._stopping = False
        self._store_is_down = False
        self._has_more = False
        """The last claim got as many as it asked for."""
        self._unreleased = sorted(destination.releases)
        self._proof_us = 0
        """When proven deliveries are released next, in elapsed time."""
        self._unordered = _put_in_order(destination)
        self._claims_ahead = self._bucket is None and not destination.fills_gaps  # a gap may close while it is queued
        self._reach = Reach(ahead=destination.concurrency, claimed_us=runtime.elapsed_us)
        self._attempt_us = span_us(destination.timeout + LEASE_MARGIN)
        self._lease_us = self._attempt_us + span_us(QUEUED_MOST)
        self._gathering: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup
        self._meters = runtime.metrics.of_destination(destination.name, OUTCOMES)

    def wake(self) -> None:
        """Look for due deliveries now. Call it from the event loop's thread only."""
        self._awake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._awake.set()

    async def run(self, grace: timedelta) -> None:
        """Deliver until `stop`; then give the attempts under way `grace` to end, and settle them."""
        async with asyncio.TaskGroup() as self._group:
            try:
                while not self._stopping:
                    self._awake.clear()
                    await self._release()
                    await self._put_in_order()
                    await self._release_proven()
                    await self._sleep(await self._guarded_run())
            finally:
                self._stopping = True
            if self._in_flight.attempts:
                _, late = await asyncio.wait(self._in_flight.attempts, timeout=grace.total_seconds())
                for attempt in late:  # unsettled: its lease ends, and it is delivered again with the same id
                    attempt.cancel()
        await self._settle_last()

    async def _release(self) -> None:
        """Release what is held for a reason that holds nothing any more; go on the next time if the store fails."""
        while self._unreleased and not self._stopping:
            now_us, destination_id = self._runtime.now_us, self._destination.id
            try:
                released = await self._runtime.write(
                    dead_letters.release, now_us=now_us, destination_id=destination_id, reason=self._unreleased[0]
                )
            except StoreError as error:
                log.warning("release_postponed", extra={"destination": self._destination.name, "error": str(error)})
                return
            if not released:
                self._unreleased.pop(0)

    async def _put_in_order(self) -> None:
        """Make what is owed fit the configured order, once; go on the next time if the store fails."""
        while self._unordered and not self._stopping:
            try:
                changed = await self._runtime.write(
                    self._unordered[0], destination_id=self._destination.id, limit=dead_letters.BATCH
                )
            except StoreError as error:
                log.warning("ordering_postponed", extra={"destination": self._destination.name, "error": str(error)})
                return
            if not changed:
                self._unordered.pop(0)

    async def _release_proven(self) -> None:
        """Release what was proven since the last look, about every second."""
        at_us = self._runtime.elapsed_us
        if self._destination.release is not Release.PROVEN or at_us < self._proof_us:
            return
        try:
            for source_id in await self._runtime.read(proof.due, destination_id=self._destination.id):
                named = {"destination_id": self._destination.id, "source_id": source_id}
                while not self._stopping and await self._runtime.write(proof.release, **named) > 0:
                    pass
        except StoreError as error:
            log.warning("release_postponed", extra={"destination": self._destination.name, "error": str(error)})
        self._proof_us = at_us + span_us(POLL)

    async def _sleep(self, wait_us: int) -> None:
        if wait_us <= 0:
            return
        try:
            async with asyncio.timeout(min(wait_us, span_us(POLL)) / 1_000_000):
                await self._awake.wait()
        except TimeoutError:
            return

    async def _guarded_run(self) -> int:
        """Run once, and pause after a bug of ours: its unsettled deliveries are attempted again."""
        try:
            return await self._run_once()
        except Exception:
            log.exception("deliver_run_failed", extra={"destination": self._destination.name})
            return span_us(POLL)

    async def _run_once(self) -> int:
        """Settle and claim; return the microseconds until the next run, unless woken."""
        now_us, at_us = self._runtime.now_us, self._runtime.elapsed_us
        self._give_back_late(at_us)
        self._begin_attempts()
        limit = self._claimable(at_us)
        settlements, self._in_flight.settlements = self._in_flight.settlements, []
        if not settlements and limit < 1:
            return await self._look(at_us)
        try:
            batch = await self._runtime.write(
                deliveries.settle_and_claim,
                destination_id=self._destination.id,
                settlements=settlements,
                now_us=now_us,
                limit=limit,
                lease_us=self._lease_us,
            )
        except (StoreUnavailable, Conflict) as error:
            self._in_flight.settlements[:0] = settlements
            return self._store_failed(error)
        self._store_is_down, until_us, at_us = False, at_us + self._lease_us, self._runtime.elapsed_us
        self._note(batch.switch, at_us)
        self._in_flight.queue.extend(Loaded(claim, event, until_us) for claim, event in batch.loaded)
        if limit > 0:
            self._has_more = len(batch.loaded) >= limit
            self._reach = reach_after(self._reach, at_us, self._destination.concurrency, has_more=self._has_more)
        self._begin_attempts()
        if batch.next_due_us is None:
            return span_us(POLL)
        return max(batch.next_due_us - now_us, 0) if self._claimable(at_us) > 0 else self._rest_us(at_us)

    async def _look(self, at_us: int) -> int:
        """See whether the destination is paused; return the microseconds until the next run, unless woken."""
        if at_us - self._looked_us < span_us(LOOK):
            return self._rest_us(at_us)
        was = self._switch
        try:
            state = await self._runtime.read(deliveries.switch, destination_id=self._destination.id)
        except StoreError as error:  # nothing was to be written: whoever writes finds out whether the store works
            log.warning("pause_not_read", extra={"destination": self._destination.name, "error": str(error)})
            return span_us(POLL)
        self._note(state, self._runtime.elapsed_us)
        return self._rest_us(at_us) if state == was else 0

    def _note(self, state: Switch, at_us: int) -> None:
        if state.is_paused != self._switch.is_paused:
            event = "destination_paused" if state.is_paused else "destination_resumed"
            log.info(event, extra={"destination": self._destination.name})
        self._switch, self._looked_us = state, at_us

    def _store_failed(self, error: StoreError) -> int:
        """Begin no attempts until results can be written again."""
        log.warning("deliveries_postponed", extra={"destination": self._destination.name, "error": str(error)})
        self._store_is_down = True
        self._awake.clear()
        return span_us(POLL)

    def _claimable(self, at_us: int) -> int:
        """Return how many deliveries may be claimed now. `at_us` is elapsed time, as for everything in memory."""
        in_flight, queued = len(self._in_flight.attempts), len(self._in_flight.queue)
        if self._switch.is_paused or self._breaker.is_open:
            self._rested_us = self._runtime.now_us
        if self._switch.is_paused:
            return 0
        if self._breaker.is_open:
            return breaker.claimable(self._breaker, self._breaker.probes - queued, in_flight, at_us)
        if not self._claims_ahead:
            wanted = min(self._destination.concurrency - in_flight, CLAIM_MAX) - queued
            return wanted if self._bucket is None else min(wanted, self._bucket.available(at_us) - queued)
        return self._reach.ahead - queued if queued <= self._reach.ahead // 2 else 0

    def _rest_us(self, at_us: int) -> int:
        """Return the microseconds until something can be claimed, unless an attempt ends before."""
        if self._breaker.is_open and at_us < self._breaker.rests_until_us:
            return self._breaker.rests_until_us - at_us
        if self._bucket is not None and len(self._in_flight.attempts) < self._destination.concurrency:
            return self._bucket.wait_us(at_us) or span_us(POLL)
        return span_us(POLL)

    def _begin_attempts(self) -> None:
        """Begin as many attempts of what is queued as may be under way."""
        at_us, queue = self._runtime.elapsed_us, self._in_flight.queue
        while queue and self._may_begin(at_us):
            loaded = queue.popleft()
            if self._bucket is not None:
                self._bucket.take(at_us)
            attempt = self._group.create_task(self._attempt(loaded.claim, loaded.event, loaded.until_us))
            self._in_flight.attempts.add(attempt)
            attempt.add_done_callback(self._attempt_ended)

    def _may_begin(self, at_us: int) -> bool:
        in_flight = len(self._in_flight.attempts)
        is_off = self._stopping or self._store_is_down or self._switch.is_paused
        if is_off or in_flight >= self._destination.concurrency:
            return False
        if self._is_late(self._in_flight.queue[0], at_us):
            return False
        if self._bucket is not None and not self._bucket.available(at_us):
            return False
        return breaker.claimable(self._breaker, 1, in_flight, at_us) > 0

    def _attempt_ended(self, attempt: asyncio.Task[None]) -> None:
        self._in_flight.attempts.discard(attempt)
        self._begin_attempts()
        is_low = len(self._in_flight.queue) <= self._reach.ahead // 2
        if (is_low and self._has_more) or len(self._in_flight.settlements) >= SETTLED_AT_ONCE:
            self._awake.set()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER.total_seconds(), self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._awake.set()

    def _is_late(self, loaded: "Loaded", at_us: int) -> bool:
        """Return True if the lease may end before an attempt that begins now."""
        return at_us + self._attempt_us > loaded.until_us

    def _give_back_late(self, at_us: int) -> None:
        """Give back what waited too long; all of it during a pause or while the breaker is open, except its probe."""
        queue, is_open = self._in_flight.queue, self._breaker.is_open and at_us < self._breaker.rests_until_us
        while queue and (is_open or self._switch.is_paused or self._is_late(queue[0], at_us)):
            self._in_flight.settlements.append(self._given_back(queue.popleft()))

    def _given_back(self, loaded: "Loaded") -> Settlement:
        now_us = self._runtime.now_us
        return Settlement(claim=loaded.claim, state=DeliveryState.PENDING, at_us=now_us, next_us=now_us)

    async def _attempt(self, claim: DeliveryClaim, event: StoredEvent, until_us: int) -> None:
        """Attempt one delivery before `until_us`, when its lease ends, in elapsed time."""
        began_us = self._runtime.elapsed_us
        if began_us >= until_us:  # this process was paused: another may have claimed the delivery
            return
        if claim.answers:
            self._meters.receipts_late.inc()
        now_us, rule = self._runtime.now_us, self._destination.confirm
        if claim.due_us is not None and claim.first_us is None and not claim.attempts:
            waited_us = now_us - max(claim.due_us, self._rested_us)  # a rest is the consumer's time, not ours
            self._meters.first_attempt.observe(max(waited_us, 0) / 1_000_000)
        settled = retry.without_attempt(claim, is_received=event.received, now_us=now_us, rule=rule)
        if settled is not None:
            self._settle(settled)
            self._count(settled, event)
            return
        result = answers.storable(await self._send(claim, event), event.payload or b"", self._mask_of(event.source))
        now_us, at_us = self._runtime.now_us, self._runtime.elapsed_us
        settled = retry.settlement(
            claim,
            result,
            began_us=now_us - (at_us - began_us),
            now_us=now_us,
            rule=self._destination.retry,
            rng=self._rng,
            resumed_us=self._switch.resumed_us,
            receipts=rule,
        )
        self._settle(settled)
        self._breaker = breaker.after(self._breaker, result, at_us, self._destination.breaker, claim.seq)
        self._meters.rests.set(self._breaker.is_open)
        self._count(settled, event)

    def _settle(self, settled: Settlement) -> None:
        is_passed = settled.state is DeliveryState.DEAD and self._destination.order_skips_dead
        self._in_flight.settlements.append(replace(settled, passed=True) if is_passed else settled)

    async def _send(self, claim: DeliveryClaim, event: StoredEvent) -> Result:
        if not claim.released and is_withdrawn(self._destination, event):
            return Withdrawn()
        if event.payload is None:
            return without_payload(event)
        try:
            async with asyncio.timeout(self._destination.timeout.total_seconds()):
                return await self._destination.sender.send(_delivery(claim, event, event.payload))
        except TimeoutError:
            detail = f"no answer within {self._destination.timeout.total_seconds():g} s"
            return Failed(reason=FailureReason.TIMEOUT, detail=detail)
        except Exception as error:
            extra = {"destination": self._destination.name, "event_key": event.key}
            log.exception("delivery_failed_here", extra=extra)
            return Failed(reason=FailureReason.INTERNAL, detail=f"{type(error).__name__}: {error}")

    def _mask_of(self, source: str) -> tuple[str, ...]:
        sources = self._runtime.sources
        return sources[source].mask if source in sources else ()

    def _count(self, settled: Settlement, event: StoredEvent) -> None:
        self._meters.outcomes[outcome_of(settled)].inc()
        if settled.state is DeliveryState.DELIVERED:
            waited_us = max(settled.at_us - event.first_seen_us, 0)
            self._meters.seconds.observe(waited_us / 1_000_000)
        elif settled.state in (DeliveryState.DEAD, DeliveryState.HELD):
            name, reason = self._destination.name, settled.reason
            extra = {"destination": name, "source": event.source, "event_key": event.key, "reason": reason}
            log.warning("delivery_waits_for_a_person", extra=extra)

    async def _settle_last(self) -> None:
        settlements, self._in_flight.settlements = self._in_flight.settlements, []
        settlements += [self._given_back(each) for each in self._in_flight.queue]
        self._in_flight.queue.clear()
        if not settlements:
            return
        try:
            await self._runtime.write(deliveries.settle, settlements=settlements)
        except StoreError as error:  # their leases end, and they are delivered again with the same ids
            extra = {"destination": self._destination.name, "count": len(settlements), "error": str(error)}
            log.warning("deliveries_unsettled", extra=extra)


def _put_in_order(destination: Destination) -> list[Callable[..., int]]:
    """Return what makes the deliveries of before fit the destination's order: each is called until it returns 0."""
    changes: list[Callable[..., int]] = [] if destination.release is Release.PROVEN else [proof.forget]
    if not destination.is_ordered:
        return [*changes, ordering.dissolve]
    if destination.order_skips_dead:
        changes.append(ordering.let_dead_pass)
    return [*changes, ordering.let_stranded_go]


def is_withdrawn(destination: Destination, event: StoredEvent) -> bool:
    """Return True if the handler has the event already, so that the destination need not fill the gap.

    A handler says so itself by a receipt. An import speaks for each handler that has a webhook of its own. Without
    receipts, the webhook of a missed event that came to us after all must have come to that handler as well.
    """
    if event.received or (event.imported and destination.fills_gaps and Via.IMPORT not in destination.via):
        return True
    came_after_all = event.via is not Via.WEBHOOK and event.webhook_us is not None
    return came_after_all and destination.hears_webhooks


def without_payload(event: StoredEvent) -> Result:
    """Return the result of a delivery whose event has no payload, or none that can be opened."""
    if event.unopened is not None:
        return Held(reason=HoldReason.KEY_MISSING, detail=event.unopened)
    if event.erased:
        return Failed(reason=FailureReason.ERASED, detail="its payload was erased", permanent=True)
    detail = "imported without a payload, or pruned"
    return Failed(reason=FailureReason.NO_PAYLOAD, detail=detail, permanent=True)


def outcome_of(settled: Settlement) -> str:
    """Return the value of the label `outcome`."""
    if settled.state is None:
        return "withdrawn"
    if settled.answered and not settled.applied:
        return retry.ANSWERED
    return "retry" if settled.state is DeliveryState.PENDING else settled.state.value


def _delivery(claim: DeliveryClaim, event: StoredEvent, payload: bytes) -> Delivery:
    return Delivery(
        id=event_id(event.identity_seed, event.key),
        key=event.key,
        source=event.source,
        stream=event.stream,
        type=event.type,
        occurred_at=from_us(event.occurred_us),
        recorded_at=from_us(event.first_seen_us),
        via=event.via,
        payload=payload,
        headers={} if event.headers is None else msgspec.json.decode(event.headers, type=dict[str, str]),
        attempt=claim.attempts + 1,
        released=claim.released,
        object_key=event.object_key,
        late=claim.late,
        livemode=event.livemode,
        endpoint_version=event.endpoint_version,
        generation=claim.generation,
    )
