"""The kinds of faults, and which of them come when: a plan made from a seed. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import cycle, islice
from random import Random


class Kind(StrEnum):
    """One kind of fault. The value is its name in tables."""

    KILL = "daemon: kill -9"
    CLOCK = "daemon: clock jumps and comes back"
    RESTART = "PostgreSQL: restart -m immediate"
    READ_ONLY = "PostgreSQL: failover to read-only"
    STORE_SILENT = "PostgreSQL: half-open connections"
    STORE_CUT = "PostgreSQL: connections cut"
    STORE_SLOW = "PostgreSQL: slow"
    LIST_SILENT = "list: half-open connections"
    LIST_CUT = "list: connections cut"
    LIST_DRIP = "list: a byte at a time"
    LIST_LACKS = "list: lacks events now and then"
    LIST_EMPTY = "list: empty pages now and then"
    LIST_TRUNCATED = "list: cut short, correctly framed"
    LIST_REST_OF_SECOND = "list: drops the rest of a second"
    LIST_ERRORS = "list: 500"
    LIST_THROTTLED = "list: 429 with Retry-After"
    WEBHOOKS_LOST = "webhooks: not sent"
    WEBHOOKS_UNRULY = "webhooks: doubled, delayed, reordered"
    WEBHOOKS_BURST = "webhooks: a burst"
    WEBHOOKS_SILENT = "webhooks: half-open connections"
    WEBHOOKS_CUT = "webhooks: connections cut"
    WEBHOOKS_REPEATED = "webhooks: whole connections repeated"
    CONSUMER_DOWN = "consumer: 503"
    CONSUMER_SILENT = "consumer: half-open connections"
    CONSUMER_CUT = "consumer: connections cut"
    CONSUMER_REPEATED = "consumer: whole connections repeated"
    ODD_ROW = "list: a row that cannot be read"


OF_POSTGRES = frozenset(
    {Kind.RESTART, Kind.READ_ONLY, Kind.STORE_SILENT, Kind.STORE_CUT, Kind.STORE_SLOW},
)
"""Faults that only a ledger on PostgreSQL can have."""
NOT_PLANNED = frozenset({Kind.KILL, Kind.RESTART, Kind.ODD_ROW})
"""Faults of which the plan has a number, or that come with the events."""
CLOCK_JUMPS_S = (3600, -3600, 600, 10_800, -600, 365 * 86_400)
"""Seconds by which the daemon's clock is wrong, one after the other."""
SHORTEST_S, LONGEST_S = 1.5, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A fault to come: `after_s` from the beginning of its round, for `lasts_s`. `turn` counts those of its kind."""

    kind: Kind
    after_s: float
    lasts_s: float
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Faults that overlap, then a calm; one fault by itself, then a calm."""

    kills: tuple[float, ...]
    """For each kill, the seconds after the daemon was last ready; 0: while it still starts."""
    steps: tuple[Step, ...]
    alone: Step | None
    """None: there is only the first calm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that happened. `alone`: nothing else happened until everything had recovered, or for a long time."""

    kind: Kind
    began: datetime
    ended: datetime
    detail: str = ""
    alone: bool = False


def plan(seed: int, *, kills: int, restarts: int, kills_a_round: int, kinds: Collection[Kind]) -> list[Round]:
    """Return the rounds of one store: the same for the same seed. Kills and restarts are spread evenly.

    `kinds`: the faults that are possible here. Each is alone once in as many rounds as there are kinds.
    """
    chance = Random(seed)
    count = max(1, -(-kills // kills_a_round))
    possible = [kind for kind in Kind if kind in kinds and kind is not Kind.ODD_ROW]
    weather = [kind for kind in possible if kind not in NOT_PLANNED]
    turns = dict.fromkeys(Kind, 0)

    def step(kind: Kind, span_s: float) -> Step:
        turn, turns[kind] = turns[kind], turns[kind] + 1
        lasts_s = chance.uniform(SHORTEST_S, LONGEST_S)
        return Step(kind=kind, after_s=round(chance.uniform(0, span_s), 3), lasts_s=round(lasts_s, 3), turn=turn)

    alone = list(islice(cycle(_shuffled(chance, possible)), count))
    others = _shares(kills - alone.count(Kind.KILL), count), _shares(restarts - alone.count(Kind.RESTART), count)
    rounds = []
    for number in range(count):
        kills_now, restarts_now = (share[number] for share in others)
        span_s = 2.0 + 2.0 * kills_now
        kinds_now = chance.sample(weather, min(len(weather), chance.randint(2, 4)))
        if Kind.RESTART in kinds:
            kinds_now += [Kind.RESTART] * restarts_now
        rounds.append(
            Round(
                kills=tuple(0.0 if chance.random() < 0.1 else chance.uniform(0.05, 1.2) for _ in range(kills_now)),
                steps=tuple(step(kind, span_s) for kind in kinds_now),
                alone=step(alone[number], 0.0),
            )
        )
    return rounds


def _shuffled(chance: Random, kinds: Sequence[Kind]) -> list[Kind]:
    return chance.sample(kinds, len(kinds))


def _shares(total: int, parts: int) -> list[int]:
    """Return `parts` numbers that add up to `total` (or 0) and differ by at most 1."""
    whole = max(0, total)
    return [whole * (at + 1) // parts - whole * at // parts for at in range(parts)]
