"""Wrong tokens are slowed per address. They and what a token does not open are written into the audit log.

That is one row for each address, or token, and minute.

Strangers cause them, so everything here is bounded: addresses in memory, rows a minute, and the log.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from gapless.client_address import sender_at
from gapless.domain import from_us
from gapless.ledger import Connection, audit_log
from gapless.ledger.audit_log import Action, AuditKey
from gapless.ledger.engine import StoreError
from gapless.operations.principals import Principal
from gapless.receive.bounded_log import BoundedLog
from gapless.runtime import Runtime
from gapless.token_bucket import TokenBucket

ALLOWED_AT_ONCE: Final = 10
ALLOWED_PER_SECOND: Final = 0.2
"""Wrong tokens of one address: ten at once, as of a person or a script that was set up wrong, then one in 5 seconds."""
ADDRESSES: Final = 4096
"""Most addresses in memory; the one that was heard of least recently is forgotten first."""
ROWS_PER_MINUTE: Final = 20
"""Most rows of one minute; further addresses are one row together."""
OTHERS: Final = "other addresses"
MINUTE_US: Final = 60_000_000
FAILED: Final = "login.failed"
"""The action of the row of an address that sent wrong tokens."""
DENIED: Final = "access.denied"
"""The action of the row of a token that asked for what it does not open."""
MINUTES_WAITING: Final = 60
"""Most minutes whose rows wait for the writer; older ones are given up."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Minute:
    """What was refused in one minute: {(action, actor, role): how often}."""

    start_us: int
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, action: str, actor: str, role: str) -> None:
        """Count one."""
        row = (action, actor, role)
        if row not in self.counts and len(self.counts) >= ROWS_PER_MINUTE:
            row = (action, OTHERS, role)
        self.counts[row] = self.counts.get(row, 0) + 1


class Refusals:
    """Notes wrong tokens without waiting; `write` puts what is over into the audit log."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._minute: Minute | None = None
        self._over: list[Minute] = []
        self._lines = BoundedLog(_log, "")

    def wait_s(self, client: str) -> int:
        """Return the seconds until this client may try another token; 0: now."""
        bucket = self._buckets.get(group_of(client))
        wait_us = 0 if bucket is None else bucket.wait_us(self._runtime.elapsed_us)
        return max(1, round(wait_us / 1_000_000)) if wait_us else 0

    def note(self, client: str) -> None:
        """Note a wrong token."""
        address, now_us = group_of(client), self._runtime.now_us
        self._bucket(address).take(self._runtime.elapsed_us)
        self._runtime.metrics.login_failures.inc()
        self._lines.log(logging.WARNING, "login_failed", now_us, client=address)
        self._count(now_us, FAILED, address, "unknown")

    def note_denied(self, principal: Principal) -> None:
        """Note that somebody known has asked for what he may not do."""
        now_us = self._runtime.now_us
        self._lines.log(logging.WARNING, "access_denied", now_us, actor=principal.name, role=principal.role.value)
        self._count(now_us, DENIED, principal.name, principal.role.value)

    async def write(self, *, everything: bool = False) -> None:
        """Write the rows of the minutes that are over; `everything`: also of the present one."""
        self._close_minute(self._runtime.now_us, everything=everything)
        while self._over:
            minute = self._over.pop(0)
            add = partial(_add_rows, actions=list(_rows(minute)), key=self._runtime.audit_key)
            try:
                await self._runtime.writer.submit_idle(add)
            except StoreError as error:
                _log.warning("refusals_not_written", extra={"error": str(error)})

    def _count(self, now_us: int, action: str, actor: str, role: str) -> None:
        self._close_minute(now_us)
        if self._minute is None:
            self._minute = Minute(start_us=now_us - now_us % MINUTE_US)
        self._minute.add(action, actor, role)

    def _close_minute(self, now_us: int, *, everything: bool = False) -> None:
        minute = self._minute
        if minute is not None and (everything or now_us // MINUTE_US != minute.start_us // MINUTE_US):
            self._over = [*self._over[-MINUTES_WAITING:], minute]
            self._minute = None

    def _bucket(self, address: str) -> TokenBucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(burst=ALLOWED_AT_ONCE, per_second=ALLOWED_PER_SECOND)
            if len(self._buckets) > ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return bucket


def group_of(client: str) -> str:
    """Return the address whose failures count together: of IPv6 the network."""
    return sender_at(client) or "unknown"


def _rows(minute: Minute) -> Iterator[Action]:
    at = from_us(minute.start_us).isoformat()
    for (action, actor, role), count in minute.counts.items():
        detail = msgspec.json.encode({"count": count, "minute": at}).decode()
        yield Action(at_us=minute.start_us, actor=actor, role=role, action=action, subject="listener", detail=detail)


def _add_rows(connection: Connection, actions: list[Action], key: AuditKey) -> None:
    for action in actions:
        audit_log.add(connection, action, key)
