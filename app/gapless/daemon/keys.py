"""Follows the keys that seal payloads while the daemon runs: their file, and what the ledger needs."""

import asyncio
import logging
from datetime import timedelta
from itertools import count
from typing import Final

from gapless.bootstrap.keys import make_keyring
from gapless.destinations.contract import HoldReason
from gapless.ledger import Connection, dead_letters, sealed
from gapless.ledger.engine import StoreError
from gapless.receive.admission import Admission
from gapless.runtime import Runtime
from gapless.sealing import Keyring, compare
from gapless.settings import SecretUnavailable, Settings

log = logging.getLogger(__name__)
CHECK_FILE_EVERY: Final = timedelta(seconds=1)
LOOK_EVERY: Final = timedelta(seconds=30)
"""Time after which the ledger is asked again which keys its rows need: another replica may have a newer one."""


class KeysRefused(Exception):
    """The keys that are configured now are not taken over. The message says why, and shows no key."""


async def watch_keys(runtime: Runtime, settings: Settings, admission: Admission) -> None:
    """Take over keys that were changed in their file, and close the receiver while none may seal, until cancelled.

    Deliveries that were held for want of a key are owed again once it is there. Keys that cannot be used leave the old
    ones in use, and the log says so.
    """
    watched = KeyFile(settings)
    await _release(runtime)
    for tick in count():
        before = set(runtime.keyring.state.unusable)
        try:
            is_due = tick % (LOOK_EVERY // CHECK_FILE_EVERY) == 0
            is_new = await watched.take_over(runtime, again=is_due)
            if not is_new and is_due:
                runtime.keyring.state = await runtime.read(sealed.look, ring=runtime.keyring)
            if is_new or before - set(runtime.keyring.state.unusable):
                await _release(runtime)
        except StoreError as error:
            log.warning("keys_not_read", extra={"error": str(error)})
        admission.note_keys(runtime.keyring.state.blocked)
        await asyncio.sleep(CHECK_FILE_EVERY.total_seconds())


async def _release(runtime: Runtime) -> None:
    """Owe what is held for want of a key. What still lacks one is held again."""
    try:
        while await runtime.write(dead_letters.owe_all_held, reason=HoldReason.KEY_MISSING.value):
            runtime.writer.recorder.wake()
    except StoreError as error:
        log.warning("release_postponed", extra={"error": str(error)})


class KeyFile:
    """The file of the keys; none if they come from a variable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen = fingerprints_in(settings)
        self._was_refused = False

    async def take_over(self, runtime: Runtime, *, again: bool) -> bool:
        """Use the keys that the file has by now; return True if they are others than before. Raises `StoreError`.

        `again`: try those once more that were refused, because no row may need the others any more.
        """
        if self._settings.encryption.keys is None or self._settings.encryption.keys.path is None:
            return False
        found = await asyncio.to_thread(fingerprints_in, self._settings)
        if found == self._seen and not (again and self._was_refused):
            return False
        self._seen, self._was_refused = found, True
        if not found:
            log.error("encryption_keys_not_replaced", extra={"error": "the file cannot be read, or has no valid keys"})
            return False
        try:
            await runtime.write(
                take_over, ring=runtime.keyring, wanted=make_keyring(self._settings), now_us=runtime.now_us
            )
        except (KeysRefused, SecretUnavailable) as error:
            log.error("encryption_keys_not_replaced", extra={"error": str(error)})  # noqa: TRY400 - no traceback
            return False
        except StoreError:
            self._seen = ()
            raise
        self._was_refused = False
        log.info("encryption_keys_replaced", extra={"keys": list(runtime.keyring.keys)})
        return True


def fingerprints_in(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return (id, fingerprint) of the keys as their file has them now; empty if it cannot be read."""
    try:
        return tuple(make_keyring(settings).fingerprints.items())
    except SecretUnavailable:
        return ()


def take_over(connection: Connection, ring: Keyring, wanted: Keyring, now_us: int) -> None:
    """Use the keys of `wanted`, unless a row needs one that is not among them any more. Raises `KeysRefused`."""
    known, needed = sealed.fingerprints(connection), sealed.needed(connection)
    state = compare(wanted, known, needed)
    lost = sorted(set(state.unusable) - set(ring.state.unusable))
    if lost:
        raise KeysRefused(
            f"rows need the key {', '.join(lost)}, and it was removed or changed: put it back, or run "
            "`gapless keys rotate` before it is removed"
        )
    ring.replace(wanted)
    sealed.enter(connection, ring, now_us)
