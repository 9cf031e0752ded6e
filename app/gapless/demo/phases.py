"""What goes wrong, and when. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

SHOW_S = 30.0
"""Length of one round when no length is asked for."""
EMITTING = 2 / 3
"""Share of a show in which events occur; the rest is for closing the gap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of the show. `share` is its part of the time in which events occur."""

    name: str
    share: float
    faulty: bool = False
    """Webhooks and list misbehave as the options say."""
    killed: bool = False
    """The receiver gets SIGKILL at the beginning and is started again at the end."""
    outage: bool = False
    """The provider answers 503 and sends nothing."""


CLOSING = Phase(name="closing", share=0.0)
RECOVERING = Phase(name="webhooks fine again", share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """The phases, each with the second at which it ends. `cyclic`: after the last comes the first again."""

    phases: tuple[tuple[float, Phase], ...]
    cyclic: bool

    @property
    def ends_s(self) -> float:
        """When the last phase ends."""
        return self.phases[-1][0]

    def at(self, elapsed_s: float) -> Phase:
        """The phase at that time; `CLOSING` once all is over."""
        time_s = elapsed_s % self.ends_s if self.cyclic else elapsed_s
        return next((phase for end_s, phase in self.phases if time_s < end_s), CLOSING)


def plan_phases(length_s: float | None, *, drop: float, kill: bool) -> PhasePlan:
    """The script for a show of `length_s`; None: rounds of `SHOW_S` without an end."""
    round_s = length_s or SHOW_S
    phases = [phase for phase in _phases(drop) if kill or not phase.killed]
    timed = _timed(phases, round_s * EMITTING)
    if length_s is None:
        timed.append((round_s, RECOVERING))
    return PhasePlan(phases=tuple(timed), cyclic=length_s is None)


def _phases(drop: float) -> tuple[Phase, ...]:
    lost = f"{drop:.0%} dropped"
    return (
        Phase(name="webhooks fine", share=0.15),
        Phase(name=lost, share=0.30, faulty=True),
        Phase(name="receiver killed", share=0.25, faulty=True, killed=True),
        Phase(name="receiver back", share=0.15, faulty=True),
        Phase(name="provider outage", share=0.15, outage=True),
    )


def _timed(phases: Sequence[Phase], span_s: float) -> list[tuple[float, Phase]]:
    unit_s = span_s / sum(phase.share for phase in phases)
    ends = [unit_s * sum(phase.share for phase in phases[: n + 1]) for n in range(len(phases))]
    return list(zip(ends, phases, strict=True))
