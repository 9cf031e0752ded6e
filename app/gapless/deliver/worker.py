"""The worker of one destination: claims the deliveries that are due, attempts them and settles them.

Each run settles finished attempts and claims as many deliveries as can be attempted at once, in one commit;
results that arrive during the commit wait for the next run. So a backlog of any size costs the memory of
`concurrency` events, and no claim waits in memory while its lease runs.
"""

import asyncio
import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random

import msgspec

from gapless.deliver import breaker, retry
from gapless.deliver.breaker import Breaker
from gapless.deliver.routing import Destination
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    Failed,
    FailureReason,
    Result,
    Withdrawn,
    event_id,
)
from gapless.domain import Via, from_us, span_us
from gapless.ledger import dead_letters, deliveries
from gapless.ledger.deliveries import DeliveryClaim, DeliveryState, Settlement, StoredEvent
from gapless.ledger.engine import Conflict, StoreError, StoreUnavailable
from gapless.runtime import Runtime
from gapless.token_bucket import TokenBucket

CLAIM_MAX = 64
"""Most deliveries claimed at once, so that no commit takes long."""
LEASE_MARGIN = timedelta(seconds=10)
"""Time that a lease lasts beyond an attempt's timeout: to load before it and to settle after it."""
POLL = timedelta(seconds=1)
"""Longest sleep. If a notice of another replica is lost, its deliveries are found after it."""
DETAIL_MAX = 300
OUTCOMES = ("delivered", "retry", "dead", "held", "withdrawn")
"""Every value of the label `outcome`."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class InFlight:
    """Attempts under way, and the settlements that are not yet written."""

    attempts: set[asyncio.Task[None]] = field(default_factory=set)
    settlements: list[Settlement] = field(default_factory=list)


class DestinationWorker:
    """Delivers to one destination until `stop`."""

    def __init__(self, destination: Destination, runtime: Runtime, rng: Random) -> None:
        self._destination = destination
        self._runtime = runtime
        self._metrics = metrics = runtime.metrics
        self._rng = rng
        self._in_flight = InFlight()
        self._breaker = Breaker()
        rate = destination.rate
        self._bucket = None if rate is None else TokenBucket(burst=max(rate, 1), per_second=rate)
        self._awake = asyncio.Event()
        self._stopping = False
        self._unreleased = sorted(destination.releases)
        self._lease_us = span_us(destination.timeout + LEASE_MARGIN)
        for outcome in OUTCOMES:
            metrics.deliveries.labels(destination.name, outcome)
        metrics.delivery_seconds.labels(destination.name)
        metrics.circuit_open.labels(destination.name).set(0)

    def wake(self) -> None:
        """Look for due deliveries now. Call it from the event loop's thread only."""
        self._awake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._awake.set()

    async def run(self, grace: timedelta) -> None:
        """Deliver until `stop`; then give the attempts under way `grace` to end, and settle them."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                self._awake.clear()
                await self._release()
                await self._sleep(await self._guarded_run(group))
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

    async def _sleep(self, wait_us: int) -> None:
        if wait_us <= 0:
            return
        try:
            async with asyncio.timeout(min(wait_us, span_us(POLL)) / 1_000_000):
                await self._awake.wait()
        except TimeoutError:
            return

    async def _guarded_run(self, group: asyncio.TaskGroup) -> int:
        """Run once, and pause after a bug of ours: its unsettled deliveries are attempted again."""
        try:
            return await self._run_once(group)
        except Exception:
            log.exception("deliver_run_failed", extra={"destination": self._destination.name})
            return span_us(POLL)

    async def _run_once(self, group: asyncio.TaskGroup) -> int:
        """Settle and claim; return the microseconds until the next run, unless woken."""
        now_us, at_us = self._runtime.now_us, self._runtime.elapsed_us
        limit = self._claimable(at_us)
        settlements, self._in_flight.settlements = self._in_flight.settlements, []
        if not settlements and limit < 1:
            return self._rest_us(at_us)
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
        await self._begin(group, batch.claims, at_us)
        if batch.next_due_us is None:
            return span_us(POLL)
        return max(batch.next_due_us - now_us, 0) if self._claimable(at_us) > 0 else self._rest_us(at_us)

    def _store_failed(self, error: StoreError) -> int:
        log.warning("deliveries_postponed", extra={"destination": self._destination.name, "error": str(error)})
        self._awake.clear()
        return span_us(POLL)

    def _claimable(self, at_us: int) -> int:
        """Return how many deliveries may be claimed now. `at_us` is elapsed time, as for everything in memory."""
        in_flight = len(self._in_flight.attempts)
        wanted = min(self._destination.concurrency - in_flight, CLAIM_MAX)
        if self._bucket is not None:
            wanted = min(wanted, self._bucket.available(at_us))
        return breaker.claimable(self._breaker, wanted, in_flight, at_us)

    def _rest_us(self, at_us: int) -> int:
        """Return the microseconds until something can be claimed, unless an attempt ends before."""
        if self._breaker.is_open and at_us < self._breaker.rests_until_us:
            return self._breaker.rests_until_us - at_us
        if self._bucket is not None and len(self._in_flight.attempts) < self._destination.concurrency:
            return self._bucket.wait_us(at_us) or span_us(POLL)
        return span_us(POLL)

    async def _begin(self, group: asyncio.TaskGroup, claims: list[DeliveryClaim], at_us: int) -> None:
        if not claims:
            return
        try:
            loaded = await self._runtime.read(deliveries.load, claims=claims)
        except StoreError as error:  # they are due again when their leases end
            self._store_failed(error)
            return
        if self._bucket is not None:
            self._bucket.take(at_us, len(loaded))
        for claim, event in loaded:
            attempt = group.create_task(self._attempt(claim, event, at_us + self._lease_us))
            self._in_flight.attempts.add(attempt)
            attempt.add_done_callback(self._attempt_ended)

    def _attempt_ended(self, attempt: asyncio.Task[None]) -> None:
        self._in_flight.attempts.discard(attempt)
        self._awake.set()

    async def _attempt(self, claim: DeliveryClaim, event: StoredEvent, until_us: int) -> None:
        """Attempt one delivery before `until_us`, when its lease ends, in elapsed time."""
        began_us = self._runtime.elapsed_us
        if began_us >= until_us:  # this process was paused: another may have claimed the delivery
            return
        result = storable(await self._send(claim, event))
        now_us, at_us = self._runtime.now_us, self._runtime.elapsed_us
        settled = retry.settlement(
            claim,
            result,
            began_us=now_us - (at_us - began_us),
            now_us=now_us,
            rule=self._destination.retry,
            rng=self._rng,
        )
        self._in_flight.settlements.append(settled)
        self._breaker = breaker.after(self._breaker, result, at_us, self._destination.breaker)
        self._count(settled, event, result)

    async def _send(self, claim: DeliveryClaim, event: StoredEvent) -> Result:
        if not claim.released and is_withdrawn(self._destination, event):
            return Withdrawn()
        if event.payload is None:
            detail = "imported without a payload, or pruned"
            return Failed(reason=FailureReason.NO_PAYLOAD, detail=detail, permanent=True)
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

    def _count(self, settled: Settlement, event: StoredEvent, result: Result) -> None:
        name = self._destination.name
        self._metrics.deliveries.labels(name, outcome_of(settled)).inc()
        self._metrics.circuit_open.labels(name).set(self._breaker.is_open)
        if isinstance(result, Delivered):
            waited_us = max(settled.at_us - event.first_seen_us, 0)
            self._metrics.delivery_seconds.labels(name).observe(waited_us / 1_000_000)
        elif settled.state in (DeliveryState.DEAD, DeliveryState.HELD):
            extra = {"destination": name, "source": event.source, "event_key": event.key, "reason": settled.reason}
            log.warning("delivery_waits_for_a_person", extra=extra)

    async def _settle_last(self) -> None:
        settlements, self._in_flight.settlements = self._in_flight.settlements, []
        if not settlements:
            return
        try:
            await self._runtime.write(deliveries.settle, settlements=settlements)
        except StoreError as error:  # their leases end, and they are delivered again with the same ids
            extra = {"destination": self._destination.name, "count": len(settlements), "error": str(error)}
            log.warning("deliveries_unsettled", extra=extra)


def is_withdrawn(destination: Destination, event: StoredEvent) -> bool:
    """Return True if the handler has the event already, so that the destination need not fill the gap.

    A handler says so itself by a receipt. An import speaks for each handler that has a webhook of its own. Without
    receipts, the webhook of a missed event that came to us after all must have come to that handler as well.
    """
    if event.received or (event.imported and destination.fills_gaps and Via.IMPORT not in destination.via):
        return True
    came_after_all = event.via is not Via.WEBHOOK and event.webhook_us is not None
    return came_after_all and destination.hears_webhooks


def outcome_of(settled: Settlement) -> str:
    """Return the value of the label `outcome`."""
    if settled.state is None:
        return "withdrawn"
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
        livemode=event.livemode,
        endpoint_version=event.endpoint_version,
    )


def storable(result: Result) -> Result:
    """Return the result with a detail that every database accepts: the text of a consumer's exception is arbitrary."""
    if not isinstance(result, Failed):
        return result
    clean = result.detail.replace("\0", "").encode(errors="replace").decode()
    return replace(result, detail=clean[:DETAIL_MAX])
