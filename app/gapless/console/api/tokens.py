"""`/api/v1/tokens`: who may do what. No token is shown itself: the ledger has only digests."""

from datetime import datetime

from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gapless.console.api.shared import AnyRequest, reading, refuse_limited, time
from gapless.domain import from_us
from gapless.ledger import tokens
from gapless.ledger.tokens import StoredToken
from gapless.operations.context import OperationContext


class TokenItem(Struct, frozen=True, kw_only=True):
    """A named token. `sources` and `destinations` null: all of them."""

    name: str
    role: str
    sources: list[str] | None
    destinations: list[str] | None
    created: datetime
    created_by: str
    expires: datetime | None
    """null: never."""
    revoked: datetime | None
    revoked_by: str | None
    is_valid: bool


class TokensPage(Struct, frozen=True, kw_only=True):
    """All tokens by name."""

    items: list[TokenItem]


def token_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """Return the routes."""

    @reading("/tokens", tag="tokens")
    async def list_tokens(request: AnyRequest) -> TokensPage:
        """List tokens, also those that expired or were revoked."""
        refuse_limited(request, "tokens")
        return await read_tokens(context)

    return [list_tokens]


async def read_tokens(context: OperationContext) -> TokensPage:
    """Return all tokens. Raises `StoreError`."""
    now_us = context.now_us
    return TokensPage(items=[_item(each, now_us) for each in await context.read(tokens.tokens)])


def _item(token: StoredToken, now_us: int) -> TokenItem:
    return TokenItem(
        name=token.name,
        role=token.role,
        sources=None if token.sources is None else list(token.sources),
        destinations=None if token.destinations is None else list(token.destinations),
        created=from_us(token.created_us),
        created_by=token.created_by,
        expires=time(token.expires_us),
        revoked=time(token.revoked_us),
        revoked_by=token.revoked_by,
        is_valid=token.is_valid(now_us),
    )
