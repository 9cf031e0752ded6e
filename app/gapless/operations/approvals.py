"""Asks a second person before many events are replayed, requeued, released, discarded, dismissed or erased.

The request is kept with who asked and the limits of that principal. Another named operator approves it; then it is
performed as the first has asked for it, within the first one's limits.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import msgspec
from msgspec import structs

from gapless.domain import span_us
from gapless.ledger import Connection, accounts, approvals, dead_letters, events, sources, tokens, unsettled
from gapless.ledger.approvals import StoredApproval
from gapless.operations.context import (
    ApprovalNeeded,
    OperationContext,
    OperationForbidden,
    OperationRefused,
    OperationRequest,
)
from gapless.operations.deliveries import ReplayEvents, UnsettledRequest, chosen_by, replayed_by
from gapless.operations.erasure import EraseEvents, approvable
from gapless.operations.fills import FillDestination, fill
from gapless.operations.missing import DismissMissing
from gapless.operations.principals import AccessRole, Principal
from gapless.operations.sources import AcceptAccount

VALID_FOR: Final = timedelta(days=1)
"""Time in which an operation can be approved. What it concerns may have changed by then."""
PerformApproved = Callable[[OperationContext, str, Mapping[str, object]], Awaitable[dict[str, object]]]


class ApproveOperation(OperationRequest, frozen=True, kw_only=True):
    """Approve an operation that another person has asked for.

    `token`: the named operator token of whoever approves; None: the one that the request to the API was sent with.
    """

    operation = "operation.approve"
    checks_limits = True
    id: int
    token: str | None = None


async def ask_if_many(context: OperationContext, request: OperationRequest, args: Mapping[str, object]) -> None:
    """Keep the request and raise `ApprovalNeeded`, if it concerns more events than one person may decide on."""
    if isinstance(request, EraseEvents) and not request.dry_run:
        count, args = await approvable(context, request)
    else:
        count = await count_events(context, request)
    most = context.second_person_above
    if most is None or count <= most:
        return
    number = await context.write(
        "approval.ask",
        request.operation,
        _keep,
        context=context,
        request=request,
        args=msgspec.json.encode(dict(args)).decode(),
        count=count,
    )
    raise ApprovalNeeded(
        f"{request.operation} concerns {count} events, more than {most} (second_person_above): another operator must "
        f"approve it within a day, with a token of his own: gapless approve {number['approval']}"
    )


def _keep(
    connection: Connection, context: OperationContext, request: OperationRequest, args: str, count: int
) -> dict[str, int]:
    number = approvals.add(
        connection,
        now_us=context.now_us,
        asked_by=context.actor,
        principal=msgspec.json.encode(_as_values(context.principal)).decode(),
        operation=request.operation,
        args=args,
        events=count,
    )
    return {"approval": number, "events": count}


async def count_events(context: OperationContext, request: OperationRequest) -> int:
    """Return how many events the operation concerns; 0 if it is none that a second person must approve."""
    if isinstance(request, ReplayEvents | FillDestination | UnsettledRequest):
        return 0 if request.dry_run else await _count_chosen(context, request)
    if isinstance(request, DismissMissing):
        return len(request.keys)
    if isinstance(request, AcceptAccount) and request.dismiss:
        return await context.read(_count_held, source=request.source)
    return 0


async def _count_chosen(context: OperationContext, request: ReplayEvents | FillDestination | UnsettledRequest) -> int:
    if isinstance(request, ReplayEvents):
        return await _count_replayed(context, request)
    if isinstance(request, FillDestination):
        return 0 if request.after else await _count_filled(context, request)
    if request.keys is not None:
        return len(request.keys)
    (chosen,) = chosen_by(request)
    return (await context.read(unsettled.extent, chosen=chosen)).count


async def _count_replayed(context: OperationContext, request: ReplayEvents) -> int:
    if request.keys is not None or request.since is None:
        return len(request.keys or ())
    chosen = replayed_by(request, request.since, context.runtime.clock())
    return (await context.read(events.extent, chosen=chosen)).count


async def _count_filled(context: OperationContext, request: FillDestination) -> int:
    """Return how many deliveries it would make, or if that takes long, those of the first part."""
    counted = await fill(context, structs.replace(request, dry_run=True))
    return int(str(counted["owed"]))


def _count_held(connection: Connection, source: str) -> int:
    row = sources.source_named(connection, source)
    return 0 if row is None else dead_letters.count_held(connection, int(row["id"]), accounts.OTHER_ACCOUNT)


async def approve(perform: PerformApproved, context: OperationContext, request: ApproveOperation) -> dict[str, object]:
    """Perform the operation in the name of who asked for it, and note who has approved it."""
    second = await _second_person(context, request)
    kept = await context.read(approvals.find, approval_id=request.id)
    if kept is None or kept.asked_us < context.now_us - span_us(VALID_FOR):
        raise OperationRefused(f"no operation {request.id} waits for approval; `gapless approve` shows those that do")
    first = _principal(kept)
    if second.name == kept.asked_by:
        raise OperationForbidden(f"{second.name} has asked for it; another person must approve it")
    if second.sources is not None and (first.sources is None or not first.sources <= second.sources):
        raise OperationForbidden(f"{second.name} is limited to other sources than {kept.asked_by}, who asked for it")
    await context.acting_as(second).write(
        request.operation, str(kept.id), _approve, context=context, kept=kept, by=second
    )
    acting = replace(context.acting_as(first), approved_by=second.name)
    done = await perform(acting, kept.operation, msgspec.json.decode(kept.args, type=dict[str, object]))
    return {"approved": kept.id, "operation": kept.operation, "result": done}


def _approve(
    connection: Connection, context: OperationContext, kept: StoredApproval, by: Principal
) -> dict[str, object]:
    if not approvals.approve(connection, kept.id, now_us=context.now_us, by=by.name):
        raise OperationRefused(f"operation {kept.id} was approved before; nothing was done")
    return {"operation": kept.operation, "asked_by": kept.asked_by, "events": kept.events}


async def _second_person(context: OperationContext, request: ApproveOperation) -> Principal:
    """Return the named operator who approves. Raises `OperationForbidden` if it is none."""
    stored = None
    if request.token is not None:
        stored = await context.read(tokens.find, tokens.digest_of(request.token.encode()))
    elif context.principal.role is AccessRole.OPERATOR:
        stored = await context.read(tokens.named, context.principal.name)
    is_operator = stored is not None and stored.role == AccessRole.OPERATOR and stored.is_valid(context.now_us)
    if stored is None or not is_operator:
        raise OperationForbidden("a named operator token must approve it; `gapless token create` makes one")
    limits = None if stored.sources is None else frozenset(stored.sources)
    return Principal(name=stored.name, role=AccessRole.OPERATOR, sources=limits)


def _as_values(principal: Principal) -> dict[str, Any]:
    return {
        "name": principal.name,
        "role": principal.role.value,
        "sources": None if principal.sources is None else sorted(principal.sources),
        "destinations": None if principal.destinations is None else sorted(principal.destinations),
    }


def _principal(kept: StoredApproval) -> Principal:
    values = msgspec.json.decode(kept.principal, type=dict[str, Any])
    sources_, destinations_ = (
        None if values[name] is None else frozenset(values[name]) for name in ("sources", "destinations")
    )
    return Principal(name=values["name"], role=AccessRole(values["role"]), sources=sources_, destinations=destinations_)
