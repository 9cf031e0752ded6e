"""What the demo is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gapless_reconcilers.testing.fake.faults import Faults

RATE = 20.0
RATE_ALONE = 2.0
"""Events per second, where nothing else is asked for."""
SCENARIO: Final[Mapping[str, Any]] = {
    "drop": 0.2,
    "duplicate": 0.1,
    "reorder": 0.1,
    "late_visible": 0.05,
    "bad_signature": 0.05,
    "throttle_every": 7,
    "error_rate": 0.05,
}
"""What goes wrong in the demo unless the options say otherwise; the provider alone is well-behaved by default."""
FAULTS = ("drop", "duplicate", "delay_s", "reorder", "late_visible", "bad_signature", "throttle_every", "error_rate")
"""The faults that can be asked for by option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The provider is out for `length_s` at the end of every `every_s`."""

    length_s: float
    every_s: float

    def is_on(self, elapsed_s: float) -> bool:
        """Whether the provider is out, that long after the start."""
        return elapsed_s % self.every_s >= self.every_s - self.length_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on loopback; 0 takes a free one."""

    provider: int = 0
    webhooks: int = 0
    console: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """One run of the demo.

    `length_s` None: until it is stopped. `rate`: events per second. `store`: a PostgreSQL address, None for
    a SQLite file that is made for the run. `keep`: leave that file, the configuration and the log behind.
    """

    faults: Faults
    length_s: float | None = None
    rate: float = RATE
    seed: int = 0
    outage: Outage | None = None
    ports: Ports = Ports()
    store: str | None = None
    keep: bool = False
    kill: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneOptions:
    """One run of the provider alone. `webhook_url` None: it has no endpoint, so nothing is pushed."""

    faults: Faults
    webhook_url: str | None = None
    length_s: float | None = None
    rate: float = RATE_ALONE
    seed: int = 0
    outage: Outage | None = None
    port: int = 0


def make_faults(asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> Faults:
    """What was asked for (None: it was not), else the default, else nothing. `asked` has `hidden_types` too."""
    named = {name: asked[name] for name in FAULTS if asked[name] is not None}
    return Faults(hidden_types=frozenset(asked["hidden_types"]), **{**defaults, **named})
