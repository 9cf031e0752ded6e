"""Waits for the secret that a vendor chooses, and returns it once: only this command can open what has come."""

import asyncio

from gapless.cli.access import open_operations
from gapless.one_reader import Reader
from gapless.settings import Settings

EVERY_S = 0.5
"""Time between two questions whether it has come."""


async def await_secret(settings: Settings, name: str, within_s: float) -> str | None:
    """Return the secret of the first handshake of source `name`; None: none came in time.

    Nobody waits any more once this returns or is cancelled. Raises `OperationRefused` and `StoreError`.
    """
    reader = Reader()
    who = {"source": name, "reader": reader.address}
    async with open_operations(settings) as operate:
        await operate("source.handshake", {**who, "seconds": max(1, round(within_s))})
        try:
            async with asyncio.timeout(within_s):
                while True:
                    come = await operate("source.handshake_take", who)
                    if come["sealed"] or not come["waits"]:
                        return reader.open(come["sealed"]) if come["sealed"] else None
                    await asyncio.sleep(EVERY_S)
        except TimeoutError:
            return None
        finally:
            await operate("source.handshake_take", {**who, "ends": True})
