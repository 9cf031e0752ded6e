"""The private listener of a process: its application, and the desk behind its operations."""

from collections.abc import Callable, Mapping
from functools import partial

from litestar import Litestar

import gapless
from gapless.console.api import PrivateOptions, build_private_app
from gapless.console.auth import Access
from gapless.console.desk import Desk, Unquarantined
from gapless.daemon.core import Core
from gapless.domain import Clock, Sources
from gapless.ledger import migrate
from gapless.ledger.engine import Store
from gapless.ledger.writer import Writer
from gapless.receive.evidence import Evidence
from gapless.receive.quarantine import Released, release
from gapless.receive.streams import Streams
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import ReadBudget, Secret


def private_app(core: Core, desk: Desk, run_token: Secret) -> Litestar:
    """The application of the private listener."""
    private = core.settings.private
    options = PrivateOptions(
        access=Access(
            bind=private.host,
            run_token=run_token,
            token=partial(_read, private.token),
            metrics_token=partial(_read, private.metrics_token),
        ),
        roles=frozenset(role.value for role in core.roles),
        version=gapless.__version__,
        started_at=core.timing.clock(),
        schema_is_current=migrate.is_current,
    )
    return build_private_app(options, desk, core.metrics)


def make_desk(
    store: Store,
    writer: Writer,
    book: Sources,
    clock: Clock,
    *,
    evidence: Evidence,
    budgets: Mapping[str, ReadBudget | None],
    wake: Callable[[], None] = lambda: None,
    actor: str = "api",
) -> Desk:
    """What operations work with: the daemon's own, or a command's that works on the ledger directly."""
    streams = Streams(writer)

    async def release_one(quarantine_id: int) -> Unquarantined:
        outcome = await release(
            quarantine_id, store=store, writer=writer, sources=book, streams=streams, evidence=evidence, clock=clock
        )
        if isinstance(outcome, Released):
            return Unquarantined(new=outcome.new)
        return Unquarantined(new=None, reason=outcome.reason, detail=outcome.detail)

    return Desk(
        store=store,
        writer=writer,
        sources=book,
        clock=clock,
        release_one=release_one,
        budgets=budgets,
        wake=wake,
        actor=actor,
    )


def _read(reference: SecretRef | None) -> Secret | None:
    return None if reference is None else reference.read()
