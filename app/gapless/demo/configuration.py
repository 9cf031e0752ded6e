"""The daemon's configuration for one run: a file without secrets, and the environment that holds them. Pure."""

import base64
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gapless.errors import Unavailable, UserError
from gapless.ledger import migrate, schema
from gapless.ledger.engine import open_store

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
