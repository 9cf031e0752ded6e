"""The operations by name. The API and the commands both call `perform`.

Each operation writes its changes to the audit log in the same transaction. Long operations commit in batches, with one
row of the log for each, so that webhooks need not wait for them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import msgspec

from gapless.operations import (
    absences,
    approvals,
    configuration,
    deliveries,
    destinations,
    endpoint_notes,
    erasure,
    fills,
    handshakes,
    imports,
    jobs,
    keys,
    missing,
    passes,
    quarantine,
    restore,
    sources,
    tokens,
)
from gapless.operations.context import OperationContext, OperationForbidden, OperationRefused, OperationRequest
from gapless.operations.principals import AccessRole, Principal, may_ask, refusal

R = TypeVar("R", bound=OperationRequest)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: what it takes, and what carries it out once that and the rights were checked."""

    request: type[OperationRequest]
    checked: Callable[[OperationContext, Mapping[str, object]], Awaitable[dict[str, object]]]

    async def __call__(self, context: OperationContext, args: Mapping[str, object]) -> dict[str, object]:
        """Check and carry it out."""
        return await self.checked(context, args)


async def perform(context: OperationContext, name: str, args: Mapping[str, object]) -> dict[str, object]:
    """Perform the operation `name`; msgspec can write its result as JSON.

    Raises `OperationRefused`, `OperationForbidden`, `ApprovalNeeded` and `StoreError`.
    """
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
            wanted = ", ".join(sorted(request_type.__struct_fields__, key="note".__eq__))
            raise OperationRefused(f"{request_type.operation}: {error}; it takes {wanted}") from error
        if _has_nul(args):
            raise OperationRefused(f"{request_type.operation}: a text has a NUL (U+0000), which no ledger holds")
        _refuse_others(context.principal, request)
        if context.needs_second_person:
            await approvals.ask_if_many(context, request, args)
        return await carry_out(replace(context, reason=getattr(request, request.explained_by)), request)

    return request_type.operation, Operation(request_type, checked)


def _has_nul(value: object) -> bool:
    """Return True if a text in the arguments has a character that PostgreSQL cannot take."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(map(_has_nul, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_nul, value))


def _refuse_others(principal: Principal, request: OperationRequest) -> None:
    """Raise `OperationForbidden` if this principal may not ask for it."""
    if not may_ask(principal.role, request.needs):
        raise OperationForbidden(
            f"{principal.name} has the role {principal.role.value}; {request.operation} needs {request.needs.value}"
            + (": run the command on the machine of the ledger" if request.needs is AccessRole.OWNER else "")
        )
    named = {name: getattr(request, name) for name in request.__struct_fields__}
    why = None if request.checks_limits else refusal(principal, named)
    if why is not None:
        raise OperationForbidden(f"{request.operation}: {why}")


async def _perform_approved(context: OperationContext, name: str, args: Mapping[str, object]) -> dict[str, object]:
    return await OPERATIONS[name](context, args)


OPERATIONS: Final[Mapping[str, Operation]] = dict(
    (
        _operation(sources.RenameSource, sources.rename),
        _operation(sources.SetIdentity, sources.set_identity),
        _operation(sources.AcknowledgeLosses, sources.acknowledge),
        _operation(sources.AcceptAccount, sources.accept_account),
        _operation(handshakes.AwaitHandshake, handshakes.open_window),
        _operation(handshakes.TakeHandshake, handshakes.take),
        _operation(configuration.ActivateConfiguration, configuration.activate),
        _operation(restore.NoteRestored, restore.note_restored),
        _operation(passes.DemandPass, passes.demand),
        _operation(passes.ReadPassStatus, passes.read_status),
        _operation(missing.DismissMissing, missing.dismiss),
        _operation(passes.CancelPasses, passes.cancel),
        _operation(imports.ImportEvents, imports.import_events),
        _operation(imports.RecordReceipts, imports.record_receipts),
        _operation(deliveries.ReplayEvents, deliveries.replay),
        _operation(erasure.EraseEvents, erasure.erase),
        _operation(deliveries.RequeueDeadLetters, deliveries.requeue),
        _operation(deliveries.ReleaseHeld, deliveries.release_held),
        _operation(destinations.PauseDestination, destinations.pause),
        _operation(destinations.ResumeDestination, destinations.resume),
        _operation(fills.FillDestination, fills.fill),
        _operation(deliveries.DiscardDeadLetters, deliveries.discard),
        _operation(deliveries.DiscardHeld, deliveries.discard),
        _operation(jobs.CancelJobs, jobs.cancel),
        _operation(absences.AcceptUnlisted, absences.accept_unlisted),
        _operation(quarantine.ReleaseQuarantined, quarantine.release_quarantined),
        _operation(endpoint_notes.NoteEndpoint, endpoint_notes.note_endpoint),
        _operation(approvals.ApproveOperation, partial(approvals.approve, _perform_approved)),
        _operation(keys.RotateKeys, keys.rotate),
        _operation(tokens.CreateToken, tokens.create),
        _operation(tokens.RevokeToken, tokens.revoke),
    )
)
"""Every operation, by name."""
