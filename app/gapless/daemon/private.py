"""The application of a process's private listener."""

from functools import partial

from litestar import Litestar

import gapless
from gapless.console.api import PrivateOptions, build_private_app
from gapless.console.auth import Access
from gapless.daemon.core import Core
from gapless.ledger import schema
from gapless.operations.context import OperationContext
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret


def private_app(core: Core, context: OperationContext, run_token: Secret) -> Litestar:
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
        schema_is_current=schema.is_current,
        budgets={name: policy.budget for name, policy in core.policies.items()},
    )
    return build_private_app(options, context, core.metrics)


def _read(reference: SecretRef | None) -> Secret | None:
    return None if reference is None else reference.read()
