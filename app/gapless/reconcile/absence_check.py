"""Look for events whose webhooks came and which a listing lacks, and note which of them stay absent."""

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from gapless.domain import span_us
from gapless.ledger import Connection, absences, witnesses
from gapless.ledger.passes import Pass
from gapless.ledger.streams import Stream
from gapless.provider_api.client import PurposeClient
from gapless.reconcile import pass_times
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.contradiction import MOST_WINDOWS, OtherCuts, windows_around
from gapless.reconcile.pass_result import PassResult
from gapless.reconcile.slice_progress import SliceProgress
from gapless_reconcilers.kit.contract import Page

NOTED_AT_ONCE = 500
"""Absent events that are noted in one transaction, so that webhooks need not wait for long."""


@dataclass(slots=True, kw_only=True)
class AbsenceCheck:
    """Checks the slices of one pass for absent events. `compare` takes each page that is read in another cut."""

    leased: LeasedSource
    stream: Stream
    row: Pass
    result: PassResult
    client: PurposeClient
    compare: Callable[[Page, SliceProgress], Awaitable[None]]
    must_stop: Callable[[], bool]
    windows_left: int = MOST_WINDOWS
    """Windows in which the pass may still look for absent events."""

    async def settle(self, progress: SliceProgress, span: witnesses.WitnessSpan, witnessed: int, hidden: int) -> None:
        """Look in other cuts of the list for witnesses that it lacks, and note which are absent and which no longer."""
        if pass_times.lists_states(
            self.leased
        ):  # an object that has changed again or was deleted is no longer listed in its window
            return
        accepted = await self.leased.runtime.read(absences.accepted, stream_id=self.stream.id)
        is_short = len({*progress.shown} - accepted) < witnessed or not self.leased.capabilities.exact_times
        absent: dict[int, int] = {}
        if witnessed and is_short:
            absent = await self.leased.runtime.read(witnesses.absent, span=span, shown=frozenset(progress.shown))
        if len(absent) <= hidden:
            absent = {}
        known = {
            each.event_seq: each
            for each in await self.leased.runtime.read(absences.open_absences, stream_id=self.stream.id)
        }
        tried = await self._look_elsewhere(progress, absent, known) if absent else set[int]()
        shown = frozenset(progress.shown)
        listed = known.keys() & shown
        if listed:
            await self.leased.write(absences.close_listed, seqs=listed)
        left = {seq: us for seq, us in absent.items() if seq not in shown}
        self.result.absent_anew |= bool(left.keys() - known.keys())
        ordered = sorted(left)
        for at in range(0, len(ordered), NOTED_AT_ONCE):
            part = {seq: left[seq] for seq in ordered[at : at + NOTED_AT_ONCE]}
            await self.leased.write(self._note_absent, absent=part, tried=tried)

    async def _look_elsewhere(
        self, progress: SliceProgress, absent: Mapping[int, int], known: Mapping[int, absences.Absence]
    ) -> set[int]:
        """Look in other cuts of the list for absent events whose turn it is. Return the seqs that were looked for."""
        now_us, capabilities = self.leased.runtime.now_us, self.leased.capabilities
        due = {seq: us for seq, us in absent.items() if seq not in known or known[seq].next_us <= now_us}
        windows = windows_around(due.values(), capabilities, max(self.windows_left, 1))
        self.windows_left -= len(windows)
        cuts = OtherCuts(
            client=self.client,
            capabilities=capabilities,
            stream=self.stream.name,
            window=progress.window,
            compare=lambda page: self.compare(page, progress),
            shown=lambda: frozenset(progress.shown),
            must_stop=self.must_stop,
        )
        progress.in_other_cut = True
        return await cuts.look_for(due, windows)

    def _note_absent(self, connection: Connection, absent: Mapping[int, int], tried: AbstractSet[int]) -> None:
        runtime, policy = self.leased.runtime, self.leased.policy
        absences.note(connection, self.stream.id, self.row.id, absent, runtime.now_us)
        later_us = runtime.now_us + span_us(policy.sweep_every)
        absences.note_tries(connection, tried & absent.keys(), soon_us(self.leased), later_us)


def soon_us(leased: LeasedSource) -> int:
    """Return when the list is asked again for an absent event that no listing lacked before."""
    return leased.runtime.now_us + span_us(leased.policy.pace.shortest)
