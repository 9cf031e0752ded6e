"""The start of what is new, and the clock that a process follows, on both databases."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gapless.bootstrap.runtime import ProcessParts, make_writer, open_runtime
from gapless.clock import ProcessClock
from gapless.daemon import maintenance
from gapless.deliver.routing import build_route
from gapless.domain import Sources, from_us
from gapless.ledger.engine import SqliteStore, Store
from gapless.ledger.recorder import Recorder
from gapless.metrics import Metrics
from gapless.runtime import Runtime
from gapless.settings import PublicSettings
from gapless.settings.load import load
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENVIRONMENT = {"KEY": "sk_live_fake", "SECRET": "whsec_1", "CONSUMER": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
CONFIG = """
[store]
url_env = "STORE"
[[source]]
name = "acme"
provider = "stripe"
{start}
[source.options]
api_base = "{api}"
api_key_env = "KEY"
webhook_secret_env = "SECRET"
[[destination]]
name = "shop"
url = "http://127.0.0.1:1/hook"
secret_env = "CONSUMER"
"""


async def opened(folder: Path, store_url: str, api: str, ours: datetime, start: str = "") -> dict[str, datetime]:
    """Return the starts of source and destination after a start with our clock at `ours`."""
    path = folder / "gapless.toml"
    path.write_text(CONFIG.format(api=api, start=start))
    environ = {**ENVIRONMENT, "STORE": store_url}
    parts: ProcessParts
    async with open_runtime(load(path, environ), environ, clock=lambda: ours, serves=True) as parts:
        since_us = parts.rows.destinations["shop"][1]
        return {"source": parts.runtime.sources["acme"].start, "destination": from_us(since_us)}


@pytest.mark.parametrize("skew", [timedelta(minutes=10), -timedelta(minutes=10)], ids=["ahead", "behind"])
async def test_what_is_new_starts_by_the_providers_clock(skew: timedelta, store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), clock=lambda: T0)
    async with fake.serve() as api:
        assert await opened(tmp_path, store_url, api, T0 + skew) == {"source": T0, "destination": T0}


async def test_a_refusal_tells_the_time_too(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), clock=lambda: T0)
    fake.faults.key_revoked = True
    async with fake.serve() as api:
        assert (await opened(tmp_path, store_url, api, T0 + HOUR))["source"] == T0


async def test_without_an_answer_our_own_clock_counts(store_url: str, tmp_path: Path) -> None:
    starts = await opened(tmp_path, store_url, "http://127.0.0.1:1", T0)
    assert starts == {"source": T0, "destination": T0}


async def test_a_start_that_is_configured_stays(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), clock=lambda: T0)
    async with fake.serve() as api:
        starts = await opened(tmp_path, store_url, api, T0 + HOUR, start="start = 2026-11-01")
    assert starts["source"] == datetime(2026, 11, 1, tzinfo=UTC)


async def test_what_is_known_keeps_its_start(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat(), clock=lambda: T0)
    async with fake.serve() as api:
        await opened(tmp_path, store_url, api, T0)
        fake.requests.clear()
        starts = await opened(tmp_path, store_url, api, T0 - HOUR)
    assert starts == {"source": T0, "destination": T0}
    assert fake.requests == []


# --- the clock that a process follows


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self._real = ProcessClock()

    def __call__(self) -> datetime:
        return self._real() + self.ahead


@pytest.fixture
async def machine() -> Machine:
    return Machine()


@pytest.fixture
async def runtime(store: Store, machine: Machine) -> AsyncIterator[Runtime]:
    metrics = Metrics("test")
    writer = make_writer(PublicSettings(), store, Recorder(0, build_route([])), metrics)
    async with Runtime(
        store=store, writer=writer, clock=ProcessClock(machine), metrics=metrics, sources=Sources()
    ) as runtime:
        yield runtime


def sample(runtime: Runtime, name: str) -> Any:
    return runtime.metrics.registry.get_sample_value(f"gapless_{name}")


async def test_the_ledgers_clock_is_followed_when_it_jumps(runtime: Runtime, machine: Machine) -> None:
    """On SQLite that is the machine's clock. On PostgreSQL, a machine whose clock jumps only differs from it."""
    await maintenance.follow_clock(runtime)
    before, is_own = runtime.clock(), isinstance(runtime.store, SqliteStore)
    for count, ahead in enumerate((HOUR, timedelta(0)), 1):
        machine.ahead = ahead
        assert await maintenance.follow_clock(runtime) is is_own
        assert abs(runtime.clock() - before - (ahead if is_own else timedelta(0))) < timedelta(minutes=1)
        assert sample(runtime, "clock_jumps_total") == (count if is_own else 0)
        offset = 0 if is_own else ahead.total_seconds()
        assert sample(runtime, "clock_offset_seconds") == pytest.approx(offset, abs=60)


async def test_a_small_difference_is_no_jump(runtime: Runtime, machine: Machine) -> None:
    await maintenance.follow_clock(runtime)
    machine.ahead = timedelta(milliseconds=300)
    assert not await maintenance.follow_clock(runtime)
    assert sample(runtime, "clock_jumps_total") == 0
