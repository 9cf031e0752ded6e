"""Renames a source, sets the seed of its ids, accepts its account, and acknowledges what it has lost for good."""

from typing import Annotated

from msgspec import Meta

from gapless.domain import to_us
from gapless.ledger import Connection, accounts, dead_letters, quarantine, watermarks
from gapless.ledger import sources as ledger
from gapless.operations.context import AwareTime, Name, OperationContext, OperationRefused, OperationRequest


class RenameSource(OperationRequest, frozen=True, kw_only=True):
    """Give a source another name."""

    operation = "source.rename"
    old: Name
    new: Name


async def rename(context: OperationContext, request: RenameSource) -> dict[str, object]:
    """Rename the row of a source; it keeps everything that was recorded."""
    if request.old == request.new:
        raise OperationRefused(f"source {request.old!r} has that name already")
    await context.write(request.operation, request.old, _rename, request=request)
    advice = "write the new name into the configuration and restart; until then this source is not read"
    return {"old": request.old, "new": request.new, "next": advice}


def _rename(connection: Connection, request: RenameSource) -> dict[str, str]:
    _source_id(connection, request.old)
    if not ledger.rename(connection, request.old, request.new):
        raise OperationRefused(f"source {request.new!r} exists already; choose another name")
    return {"new": request.new}


class SetIdentity(OperationRequest, frozen=True, kw_only=True):
    """Give a source the identity seed that it has in another ledger."""

    operation = "source.identity"
    source: Name
    seed: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]


async def set_identity(context: OperationContext, request: SetIdentity) -> dict[str, object]:
    """Set the seed from which consumers' ids of this source's events are made; deliveries from now on have it."""
    return await context.write(request.operation, request.source, _set_identity, request=request)


def _set_identity(connection: Connection, request: SetIdentity) -> dict[str, object]:
    source_id, holder = _source_id(connection, request.source), ledger.holder_of_seed(connection, request.seed)
    if holder not in (None, request.source):
        raise OperationRefused(
            f"source {holder!r} has the identity {request.seed!r}, and two events could get one id; nothing was changed"
        )
    ledger.set_identity_seed(connection, source_id, request.seed)
    return {"source": request.source, "identity_seed": request.seed}


def _source_id(connection: Connection, name: str) -> int:
    row = ledger.source_named(connection, name)
    if row is None:
        raise OperationRefused(f"source {name!r} is not in the ledger; `gapless source list` shows all sources")
    return int(row["id"])


class AcceptAccount(OperationRequest, frozen=True, kw_only=True):
    """Accept the account that a source's key reads; its held deliveries are sent, or dismissed."""

    operation = "source.accept_account"
    source: Name
    account: str | None = None
    """The account to accept; None: whatever the key reads."""
    dismiss: bool = False


async def accept_account(context: OperationContext, request: AcceptAccount) -> dict[str, object]:
    """Make the account that the key reads the source's own, read it from now on, and settle the held deliveries.

    If the key reads the source's own account again, only the held deliveries are settled.
    """
    accepted = await context.write(request.operation, request.source, _accept, context=context, request=request)
    settle = dead_letters.dismiss_held if request.dismiss else dead_letters.owe_held
    source_id, count = await context.read(_source_id, name=request.source), 0
    while settled := await context.write(
        request.operation, request.source, settle, source_id=source_id, reason=accounts.OTHER_ACCOUNT
    ):
        count += settled
    context.wake()
    return {**accepted, "dismissed" if request.dismiss else "released": count}


def _accept(connection: Connection, context: OperationContext, request: AcceptAccount) -> dict[str, object]:
    source_id = _source_id(connection, request.source)
    known = accounts.read(connection, source_id)
    holds = dead_letters.holds(connection, source_id, accounts.OTHER_ACCOUNT)
    if known.other is None and not holds:
        raise OperationRefused(
            f"source {request.source!r} reads its own account, {known.own}; there is nothing to accept"
        )
    if request.account not in (None, known.other or known.own):
        raise OperationRefused(
            f"the key of source {request.source!r} reads account {known.other or known.own}, not {request.account}"
        )
    accounts.accept(connection, source_id, context.now_us)
    return {"was": known.own, "account": known.other or known.own}


class AcknowledgeLosses(OperationRequest, frozen=True, kw_only=True):
    """Acknowledge what is lost for good: everything, what ended by `until`, or the named intervals."""

    operation = "source.acknowledge"
    explained_by = "reason"
    source: Name
    reason: Annotated[str, Meta(max_length=1000, pattern=r"\S")]
    until: AwareTime | None = None
    intervals: Annotated[tuple[int, ...], Meta(min_length=1, max_length=1000)] | None = None


async def acknowledge(context: OperationContext, request: AcknowledgeLosses) -> dict[str, object]:
    """Record who acknowledged the losses, when and why.

    They no longer count as trouble, and stay in every report. Earlier acknowledgements keep their reason. Without
    `intervals`, the refused webhooks that were purged unjudged are acknowledged too, and counted from 0 again.
    """
    if request.until is not None and request.intervals is not None:
        raise OperationRefused("source.acknowledge takes until or intervals; it got both")
    return await context.write(request.operation, request.source, _acknowledge, context=context, request=request)


def _acknowledge(connection: Connection, context: OperationContext, request: AcknowledgeLosses) -> dict[str, object]:
    source_id = _source_id(connection, request.source)
    _check_intervals(connection, source_id, request)
    now_us, until_us = context.now_us, None if request.until is None else to_us(request.until)
    ids = watermarks.acknowledge(
        connection,
        source_id,
        by=context.actor,
        reason=request.reason,
        now_us=now_us,
        until_us=until_us,
        ids=request.intervals,
    )
    expired = 0 if request.intervals is not None else quarantine.acknowledge_expired(connection, source_id)
    return {"intervals": ids, "expired": expired, "reason": request.reason}


def _check_intervals(connection: Connection, source_id: int, request: AcknowledgeLosses) -> None:
    known = watermarks.unrecoverable_ids(connection, source_id)
    unknown = [each for each in request.intervals or () if each not in known]
    if unknown:
        raise OperationRefused(
            f"source {request.source!r} has no unrecoverable interval {', '.join(map(str, unknown))}; "
            f"it has {', '.join(map(str, known)) or 'none'}; nothing was acknowledged"
        )
