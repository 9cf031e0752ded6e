"""`/api/v1/audit-log`: who did what, when and why."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import Struct

from gapless.console.api import cursors
from gapless.console.api.shared import PAGE, After, AnyRequest, Limit, reading, refuse_limited
from gapless.domain import from_us
from gapless.ledger import audit_log
from gapless.operations.context import OperationContext

NOUN = "audit-log"
Text = Annotated[str | None, QueryParameter(max_length=200)]


class AuditItem(Struct, frozen=True, kw_only=True):
    """One action."""

    number: int | None
    """Its place in the chain; null: it is from before there was one."""
    at: datetime
    actor: str
    role: str | None
    action: str
    subject: str
    reason: str | None
    result: Any
    """What came of it; null: nothing was written down."""
    digest: str | None


class AuditPage(Struct, frozen=True, kw_only=True):
    """A page of the log, the newest first."""

    items: list[AuditItem]
    next: str | None
    complete: bool
    """false: not everything was looked at; there may be more behind `next`."""


def audit_log_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/audit-log", tag="audit log")
    async def list_audit_log(
        request: AnyRequest,
        *,
        actor: Text = None,
        action: Text = None,
        subject: Text = None,
        after: After = None,
        limit: Limit = PAGE,
    ) -> AuditPage:
        """List what was done. `gapless log verify` proves that no row was changed, removed or inserted."""
        refuse_limited(request, "rows of the audit log")
        return await find_actions(context, actor, action, subject, after, limit)

    return [list_audit_log]


async def find_actions(
    context: OperationContext,
    actor: str | None,
    action: str | None,
    subject: str | None,
    after: str | None,
    limit: int,
) -> AuditPage:
    """Return a page of the log. Raises `HTTPException` and `StoreError`."""
    asked = {"actor": actor, "action": action, "subject": subject}
    page = await context.read(
        audit_log.page,
        **{name: None if text is None else text.replace("\0", "") for name, text in asked.items()},
        after=cursors.decode(NOUN, after),
        limit=limit,
    )
    return AuditPage(
        items=[_item(row) for row in page.rows], next=cursors.encode(NOUN, page.after), complete=page.is_full
    )


def _item(row: dict[str, Any]) -> AuditItem:
    return AuditItem(
        number=row["number"],
        at=from_us(row["at_us"]),
        actor=row["actor"],
        role=row["role"],
        action=row["action"],
        subject=row["subject"],
        reason=row["reason"],
        result=_decoded(row["detail"]),
        digest=row["digest"],
    )


def _decoded(detail: str | None) -> Any:
    """Return the result as it was; rows of early releases have any text."""
    try:
        return None if detail is None else msgspec.json.decode(detail)
    except msgspec.DecodeError:
        return detail
