"""The operations by name. The API and the commands both call `perform`.

Each operation writes its changes to the audit log in the same transaction. Long operations commit in batches, with one
row of the log for each, so that webhooks need not wait for them.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec

from gapless.operations import (
    absences,
    configuration,
    deliveries,
    imports,
    missing,
    passes,
    quarantine,
    restore,
    sources,
)
from gapless.operations.context import OperationContext, OperationRefused, OperationRequest

R = TypeVar("R", bound=OperationRequest)
Operation = Callable[[OperationContext, Mapping[str, object]], Awaitable[dict[str, object]]]


async def perform(context: OperationContext, name: str, args: Mapping[str, object]) -> dict[str, object]:
    """Perform the operation `name`; msgspec can write its result as JSON. Raises `OperationRefused`, `StoreError`."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise OperationRefused(f"operation {name!r} does not exist; there are {', '.join(sorted(OPERATIONS))}")
    return await operation(context, args)


def _operation(
    request_type: type[R], carry_out: Callable[[OperationContext, R], Awaitable[dict[str, object]]]
) -> tuple[str, Operation]:
    async def checked(context: OperationContext, args: Mapping[str, object]) -> dict[str, object]:
        try:
            request = msgspec.convert(dict(args), request_type)
        except msgspec.ValidationError as error:
            wanted = ", ".join(request_type.__struct_fields__)
            raise OperationRefused(f"{request_type.operation}: {error}; it takes {wanted}") from error
        return await carry_out(context, request)

    return request_type.operation, checked


OPERATIONS: Final[Mapping[str, Operation]] = dict(
    (
        _operation(sources.RenameSource, sources.rename),
        _operation(sources.SetIdentity, sources.set_identity),
        _operation(sources.AcknowledgeLosses, sources.acknowledge),
        _operation(sources.AcceptAccount, sources.accept_account),
        _operation(configuration.ActivateConfiguration, configuration.activate),
        _operation(restore.NoteRestored, restore.note_restored),
        _operation(passes.DemandPass, passes.demand),
        _operation(passes.ReadPassStatus, passes.read_status),
        _operation(missing.DismissMissing, missing.dismiss),
        _operation(passes.CancelPasses, passes.cancel),
        _operation(imports.ImportEvents, imports.import_events),
        _operation(imports.RecordReceipts, imports.record_receipts),
        _operation(deliveries.ReplayEvents, deliveries.replay),
        _operation(deliveries.RequeueDeadLetters, deliveries.requeue),
        _operation(deliveries.ReleaseHeld, deliveries.release_held),
        _operation(absences.AcceptUnlisted, absences.accept_unlisted),
        _operation(quarantine.ReleaseQuarantined, quarantine.release_quarantined),
    )
)
"""Every operation, by name."""
