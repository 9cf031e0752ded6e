"""Makes and revokes named tokens of the private listener. No token can make another: only an owner does."""

from typing import Annotated

from msgspec import Meta

from gapless.domain import from_us, to_us
from gapless.ledger import Connection, tokens
from gapless.operations.context import AwareTime, Name, OperationContext, OperationRefused, OperationRequest
from gapless.operations.principals import GRANTED, AccessRole

Names = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=100)]


class CreateToken(OperationRequest, frozen=True, kw_only=True):
    """Make a token. `expires` None: never."""

    operation = "token.create"
    needs = AccessRole.OWNER
    is_shown_once = True
    name: Name
    role: AccessRole
    sources: Names | None = None
    destinations: Names | None = None
    expires: AwareTime | None


class RevokeToken(OperationRequest, frozen=True, kw_only=True):
    """Revoke the token of that name, at once and for good."""

    operation = "token.revoke"
    needs = AccessRole.OWNER
    name: Name


async def create(context: OperationContext, request: CreateToken) -> dict[str, object]:
    """Make a token and return it. It is shown this once: only its digest is stored."""
    _check(context, request)
    token = tokens.new_token()
    made = await context.write(
        request.operation,
        request.name,
        _add,
        context=context,
        request=request,
        digest=tokens.digest_of(token.reveal().encode()),
    )
    return {"name": request.name, **made, "token": token.reveal()}


def _check(context: OperationContext, request: CreateToken) -> None:
    if request.role not in GRANTED:
        raise OperationRefused(f"a token cannot be {request.role.value}; wanted one of {', '.join(GRANTED)}")
    if request.role is AccessRole.CONSUMER and request.destinations is None:
        raise OperationRefused("a consumer is bound to its destinations; name them")
    if request.role is not AccessRole.CONSUMER and request.destinations is not None:
        raise OperationRefused(f"only a consumer is bound to destinations, not a {request.role.value}; leave them out")
    if request.role is AccessRole.METRICS and request.sources is not None:
        raise OperationRefused("the metrics are those of all sources; leave the sources out, or make it a viewer")
    for each in request.sources or ():
        context.source(each)
    if request.expires is not None and to_us(request.expires) <= context.now_us:
        raise OperationRefused(f"it would have expired at {request.expires.isoformat()}; name a time to come")


def _add(connection: Connection, context: OperationContext, request: CreateToken, digest: str) -> dict[str, object]:
    if tokens.named(connection, request.name) is not None:
        raise OperationRefused(
            f"there is or was a token {request.name!r}, and a name is given once, so that the audit log is clear; "
            "choose another name"
        )
    expires_us = None if request.expires is None else to_us(request.expires)
    tokens.add(
        connection,
        name=request.name,
        role=request.role.value,
        digest=digest,
        now_us=context.now_us,
        by=context.actor,
        sources=request.sources,
        destinations=request.destinations,
        expires_us=expires_us,
    )
    return {
        "role": request.role.value,
        "sources": request.sources,
        "destinations": request.destinations,
        "expires": None if expires_us is None else from_us(expires_us),
    }


async def revoke(context: OperationContext, request: RevokeToken) -> dict[str, object]:
    """Revoke the token: the next request with it is refused."""
    return await context.write(request.operation, request.name, _revoke, context=context, request=request)


def _revoke(connection: Connection, context: OperationContext, request: RevokeToken) -> dict[str, object]:
    if not tokens.revoke(connection, request.name, now_us=context.now_us, by=context.actor):
        known = ", ".join(each.name for each in tokens.tokens(connection) if each.revoked_us is None) or "none"
        raise OperationRefused(f"there is no token {request.name!r} that could be revoked; there are: {known}")
    return {"revoked": request.name}
