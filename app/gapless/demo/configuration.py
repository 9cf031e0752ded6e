"""Everything that is decided before the demo starts: options and phases, ports and store, the daemon's configuration.

The configuration is a file without secrets and an environment that holds them.
"""

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

HOST: Final = "127.0.0.1"
SOURCE: Final = "stripe-demo"
DESTINATION: Final = "consumer"
OWN_PREFIXES: Final = ("GAPLESS_", "DEMO_")
ROUND_S: Final = 30.0
"""Length of one round if no length is requested."""
EMITTING_SHARE: Final = 2 / 3
"""Share of a round in which events occur; in the rest the gap closes."""
RATE: Final = 20.0
"""Events per second in the whole demo, unless the options say otherwise."""
PROVIDER_ONLY_RATE: Final = 2.0
"""Events per second of the provider without a daemon, unless the options say otherwise."""
SCENARIO: Final[Mapping[str, Any]] = {
    "drop": 0.2,
    "duplicate": 0.1,
    "reorder": 0.1,
    "late_visible": 0.05,
    "bad_signature": 0.05,
    "throttle_every": 7,
    "error_rate": 0.05,
}
"""The faults of the demo unless the options say otherwise; the provider without a daemon has none by default."""
FAULTS: Final = (
    "drop",
    "duplicate",
    "delay_s",
    "reorder",
    "late_visible",
    "bad_signature",
    "throttle_every",
    "error_rate",
)
"""The faults that options can set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of the demo. `share` is its part of the time in which events occur."""

    name: str
    share: float
    faulty: bool = False
    """Webhooks and list misbehave as the options say."""
    killed: bool = False
    """The receiver gets SIGKILL at the beginning and is started again at the end."""
    outage: bool = False
    """The provider answers 503 and sends nothing."""


CLOSING: Final = Phase(name="closing", share=0.0)
RECOVERING: Final = Phase(name="webhooks fine again", share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """The phases, each with the second at which it ends. `cyclic`: after the last comes the first again."""

    phases: tuple[tuple[float, Phase], ...]
    cyclic: bool

    @property
    def ends_s(self) -> float:
        """Seconds from the start to the end of the last phase."""
        return self.phases[-1][0]

    def at(self, elapsed_s: float) -> Phase:
        """Return the phase at that time; `CLOSING` after the last one."""
        time_s = elapsed_s % self.ends_s if self.cyclic else elapsed_s
        return next((phase for end_s, phase in self.phases if time_s < end_s), CLOSING)


def plan_phases(length_s: float | None, *, drop: float, kill: bool) -> PhasePlan:
    """Return the phases of a demo of `length_s`; None: rounds of `ROUND_S` without an end."""
    round_s = length_s or ROUND_S
    phases = [phase for phase in _phases(drop) if kill or not phase.killed]
    timed = _timed(phases, round_s * EMITTING_SHARE)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The provider is unavailable for `length_s` at the end of every `every_s`."""

    length_s: float
    every_s: float

    def is_on(self, elapsed_s: float) -> bool:
        """Return True if the provider is unavailable `elapsed_s` after the start."""
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
class ProviderOnlyOptions:
    """One run of the provider without a daemon. `webhook_url` None: there is no endpoint, so no webhook is sent."""

    faults: Faults
    webhook_url: str | None = None
    length_s: float | None = None
    rate: float = PROVIDER_ONLY_RATE
    seed: int = 0
    outage: Outage | None = None
    port: int = 0


def make_faults(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Faults:
    """Return the faults that `options` set (None: not set), else the default. `options` has `hidden_types` too."""
    named = {name: options[name] for name in FAULTS if options[name] is not None}
    return Faults(hidden_types=frozenset(options["hidden_types"]), **{**defaults, **named})


class PortTaken(Unavailable):
    """Another program listens on the port that an option names."""

    def __init__(self, port: int, option: str) -> None:
        super().__init__(
            f"{HOST}:{port} is taken: stop what listens there, or give {option} another port (0: a free one)"
        )


@contextmanager
def reserve(port: int, option: str) -> Iterator[int]:
    """Yield a port and keep other programs from taking it while the block lasts. Raises `PortTaken`.

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
    """The database already has a ledger, which the demo must not touch."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSecrets:
    """The secrets of one run, generated at its start. They stay in memory and the environment, never in a file."""

    api_key: str = field(default_factory=lambda: f"sk_test_{secrets.token_hex(16)}", repr=False)
    webhook: str = field(default_factory=lambda: f"whsec_{secrets.token_hex(16)}", repr=False)
    delivery: str = field(
        default_factory=lambda: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}", repr=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The base URLs of the parts of the demo, without a slash at the end."""

    provider: str
    consumer: str
    public: str
    private: str

    @property
    def webhook_url(self) -> str:
        """The address to which the provider sends its webhooks."""
        return f"{self.public}/webhooks/{SOURCE}"


def daemon_config(addresses: Addresses) -> str:
    """Return `gapless.toml` for the demo: as an operator would write it, but with seconds where days are usual.

    The lookback covers every event that becomes visible late. The read budget is practically unlimited, because
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


def daemon_environ(environ: Mapping[str, str], demo_secrets: DemoSecrets, config: Path, store: str) -> dict[str, str]:
    """Return the daemon's environment: `environ` without your own settings, plus the configuration and the secrets."""
    kept = {name: value for name, value in environ.items() if not name.startswith(OWN_PREFIXES)}
    return kept | {
        "GAPLESS_CONFIG": str(config),
        "DEMO_STORE_URL": store,
        "DEMO_API_KEY": demo_secrets.api_key,
        "DEMO_WEBHOOK_SECRET": demo_secrets.webhook,
        "DEMO_DELIVERY_SECRET": demo_secrets.delivery,
    }


def try_it_config(base_url: str) -> str:
    """Return the tables that people put into their own `gapless.toml` to read the provider without our daemon."""
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
