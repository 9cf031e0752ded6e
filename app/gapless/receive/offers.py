"""Secrets that vendors choose and tell in an unsigned handshake: taken only while an operator waits for one.

Strangers can send such handshakes too, so the ledger is asked about few of them.
"""

import asyncio
from typing import Final

from gapless import one_reader
from gapless.ledger import handshakes
from gapless.receive.webhook import OTHER, Refusal
from gapless.runtime import Runtime
from gapless.token_bucket import TokenBucket
from gapless_reconcilers.kit.contract import Secret

AT_ONCE: Final = 5
PER_SECOND: Final = 0.5
"""Limit of handshakes per source that the ledger is asked about."""
NOBODY: Final = Refusal(
    reason=OTHER, detail="a handshake that nobody waits for: run `gapless source handshake` before you make the webhook"
)


class Offers:
    """The handshakes of one source."""

    def __init__(self, runtime: Runtime, source_id: int) -> None:
        self._runtime = runtime
        self._source_id = source_id
        self._asked = TokenBucket(burst=AT_ONCE, per_second=PER_SECOND)

    async def take(self, offered: Secret, answer_by: float) -> bool:
        """Seal `offered` for the operator who waits for it; False if nobody does.

        Raises `StoreError`, and `TimeoutError` at `answer_by` on the clock of the event loop.
        """
        if not self._asked.take(self._runtime.elapsed_us):
            return False
        async with asyncio.timeout_at(answer_by):
            found = await self._runtime.read(handshakes.waiting, source_id=self._source_id)
            if found is None or found.sealed is not None or found.until_us <= self._runtime.now_us:
                return False
            sealed = one_reader.seal(offered.reveal(), found.reader)
            return await self._runtime.write(
                handshakes.give,
                source_id=self._source_id,
                reader=found.reader,
                sealed=sealed,
                now_us=self._runtime.now_us,
            )
