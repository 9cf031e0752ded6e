"""The daemon's configuration for one run: a file without secrets, and the environment that holds them. Pure."""

import base64
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gapless.errors import Unavailable, UserError
from gapless.ledger import migrate, schema
from gapless.ledger.engine import open_store
from gapless_reconcilers.testing.fake.webhook_sender import Faults

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


HOST = "127.0.0.1"


class PortTaken(Unavailable):
    """Another program listens where the demo was told to."""

    def __init__(self, port: int, option: str) -> None:
        super().__init__(
            f"{HOST}:{port} is taken: stop what listens there, or give {option} another port (0: a free one)"
        )


@contextmanager
def reserve(port: int, option: str) -> Iterator[int]:
    """A port that only those who know it can bind, for as long as the block lasts. Raises `PortTaken`.

    On Linux a socket that is bound with SO_REUSEADDR and does not listen keeps the kernel from giving the
    port away, and lets the daemon bind it. Elsewhere it would keep the daemon out, so it is closed at once.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((HOST, port))
        except OSError as error:
            raise PortTaken(port, option) from error
        taken = int(held.getsockname()[1])
        if sys.platform != "linux":
            held.close()
        yield taken


class StoreUnfit(UserError):
    """The database has a ledger already, and the demo must not touch it."""


async def prepare_store(url: str) -> None:
    """Give an empty PostgreSQL database our schema; SQLite needs nothing. Raises `StoreUnfit` and `StoreError`."""
    if url.startswith("sqlite:"):
        return
    store = open_store(url)
    try:
        if await store.read(schema.version) is not None:
            raise StoreUnfit("--store: this database has a ledger already; give the demo an empty one (createdb demo)")
        await store.write(migrate.upgrade)
    finally:
        await store.close()


SOURCE = "stripe-demo"
DESTINATION = "consumer"
OWN_PREFIXES = ("GAPLESS_", "DEMO_")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSecrets:
    """Made anew for each run; held in memory and in the daemon's environment, never in a file."""

    api_key: str = field(default_factory=lambda: f"sk_test_{secrets.token_hex(16)}", repr=False)
    webhook: str = field(default_factory=lambda: f"whsec_{secrets.token_hex(16)}", repr=False)
    delivery: str = field(
        default_factory=lambda: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}", repr=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the parts of the demo listen: base URLs without a slash at the end."""

    provider: str
    consumer: str
    public: str
    private: str

    @property
    def webhook_url(self) -> str:
        """Where the provider sends its webhooks."""
        return f"{self.public}/webhooks/{SOURCE}"


def daemon_config(addresses: Addresses) -> str:
    """`gapless.toml` for the demo: as an owner would write it, but with seconds where days are usual.

    The lookback covers every event that becomes visible late; the read budget is as good as none, since
    Stripe's own would rightly slow passes down to minutes.
    """
    return f"""\
public_url = "{addresses.public}"

[store]
url_env = "DEMO_STORE_URL"
min_free = "16MB"

[public]
host = "127.0.0.1"
port = {_port(addresses.public)}

[private]
port = {_port(addresses.private)}

[[source]]
name = "{SOURCE}"
provider = "stripe"
grace = "1s"
every = "1s"
every_max = "2s"
lookback = "1m"
requests_per_second = 50
read_budget = {{ requests = 1000000, period = "1d" }}

[source.options]
api_base = "{addresses.provider}"
api_key_env = "DEMO_API_KEY"
webhook_secret_env = "DEMO_WEBHOOK_SECRET"
livemode = false

[[destination]]
name = "{DESTINATION}"
url = "{addresses.consumer}/events"
allow = ["127.0.0.1"]
secret_env = "DEMO_DELIVERY_SECRET"
backoff_first = "500ms"
backoff_max = "2s"
"""


def daemon_environ(environ: Mapping[str, str], own: DemoSecrets, config: Path, store: str) -> dict[str, str]:
    """The daemon's environment: `environ` without any setting of yours, with the configuration and the secrets."""
    kept = {name: value for name, value in environ.items() if not name.startswith(OWN_PREFIXES)}
    return kept | {
        "GAPLESS_CONFIG": str(config),
        "DEMO_STORE_URL": store,
        "DEMO_API_KEY": own.api_key,
        "DEMO_WEBHOOK_SECRET": own.webhook,
        "DEMO_DELIVERY_SECRET": own.delivery,
    }


def try_it_config(base_url: str) -> str:
    """What people put into their own `gapless.toml` to read the provider that runs alone."""
    return f"""\
[[source]]
name = "{SOURCE}"
provider = "stripe"
grace = "2s"
every = "5s"
every_max = "10s"
read_budget = {{ requests = 1000000, period = "1d" }}

[source.options]
api_base = "{base_url}"
api_key_env = "DEMO_API_KEY"
webhook_secret_env = "DEMO_WEBHOOK_SECRET"
livemode = false
"""


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
