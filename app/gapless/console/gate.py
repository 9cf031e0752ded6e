"""The check of each request to the private listener: who asks, whether that opens the area, and what a refusal costs.

The rules are in `auth`, which is pure. A wrong token is noted in `refusals`, and an address that has sent many must
wait; a token that was right before is let in meanwhile, so that nobody can lock others out.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException

from gapless.client_address import TrustedProxies, client_address
from gapless.console import auth, browser_sessions, oidc
from gapless.console.auth import Access, AccessDecision, Area, Caller
from gapless.console.oidc import OidcOptions
from gapless.console.refusals import Refusals
from gapless.ledger import tokens
from gapless.ledger.sessions import BrowserSession
from gapless.ledger.tokens import StoredToken
from gapless.operations.principals import ACTOR_HEADER, AccessRole, Principal
from gapless.runtime import Runtime
from gapless.settings import SecretUnavailable

ACTOR_CHARACTERS: Final = 80
GOOD_TOKENS: Final = 1024
"""Most digests in memory of tokens that were right."""
WRITE_EVERY_S: Final = 1.0
STOP_WITHIN_S: Final = 1.0
ANYBODY: Final = Principal(name="anybody", role=AccessRole.VIEWER)
"""Who asks without a token for what is open without one."""
log = logging.getLogger(__name__)


class Gate:
    """Lets requests in, or raises `HTTPException`."""

    def __init__(
        self,
        access: Access,
        runtime: Runtime,
        trusted: TrustedProxies | None = None,
        oidc_options: OidcOptions | None = None,
    ) -> None:
        self.refusals = Refusals(runtime)
        self._access = access
        self._runtime = runtime
        self._trusted = trusted
        self._oidc = oidc_options
        self._good: OrderedDict[str, None] = OrderedDict()
        self._token_is_gone = False

    async def let_in(
        self, connection: ASGIConnection[Any, Any, Any, Any], area: Area, *, by_form: bool = False
    ) -> Principal:
        """Return who asks. Raises `HTTPException` if that does not open the area, and `StoreError`.

        A browser that has signed in may read; to change something it must send a form of ours (`by_form`), whose
        secret the route compares.
        """
        if area is Area.PROBE:
            return ANYBODY
        caller = _caller(connection)
        client = self._client(connection)
        presented = auth.presented_token(caller.authorization)
        self._make_wait(client, presented)
        stored = await self._stored(presented)
        known = self._valid(stored)
        if presented is None and (area in (Area.READ, Area.STREAM) or by_form):
            known = await self._of_session(connection)
        try:
            decision = auth.decide_access(self._access, area, caller, known)
            known = known or auth.identify(self._access, area, presented)
        except SecretUnavailable as error:
            raise self._token_gone(error) from None
        self._note_token_back()
        if decision is not AccessDecision.ALLOWED:
            raise self._refused(decision, client, presented, known, stored)
        if known is None:
            return ANYBODY
        self._remember(presented)
        return _named_owner(connection, known)

    async def sign_in(self, connection: ASGIConnection[Any, Any, Any, Any], token: str) -> str:
        """Begin a session of whoever has the token, and return its cookie. Raises `HTTPException` and `StoreError`."""
        caller, client, presented = _caller(connection), self._client(connection), token.encode()
        if auth.is_foreign(caller):
            raise HTTPException(status_code=HTTPStatus.FORBIDDEN, detail=AccessDecision.FOREIGN_ORIGIN.advice)
        self._make_wait(client, presented)
        stored = await self._stored(presented)
        try:
            known = self._valid(stored) or auth.identify(self._access, Area.READ, presented)
        except SecretUnavailable as error:
            raise self._token_gone(error) from None
        if known is None:
            raise self._refused(AccessDecision.TOKEN_REQUIRED, client, presented, None, stored)
        if Area.READ not in auth.OPENS[known.role]:
            raise self._refused(AccessDecision.NOT_GRANTED, client, presented, known, stored)
        self._remember(presented)
        name = auth.OF_LEDGER + known.name if stored is not None else known.name
        return await browser_sessions.begin(self._runtime, name, presented)

    def make_wait(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Raise 429 if the address has failed to sign in too often."""
        self._make_wait(self._client(connection), b"-")

    def note_refused(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Count that the address has failed to sign in."""
        self.refusals.note(self._client(connection))

    async def sign_in_as(self, principal: Principal, options: OidcOptions) -> str:
        """Begin a session of somebody whom the identity provider has named; return its cookie. Raises `StoreError`."""
        return await browser_sessions.begin(self._runtime, oidc.session_name(principal), options.digest.encode())

    async def _of_session(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Principal | None:
        """Return who has signed in with the browser, if the token is still in force. Raises `StoreError`."""
        cookie = connection.cookies.get(browser_sessions.COOKIE)
        session = None if cookie is None else await browser_sessions.find(self._runtime, cookie)
        if cookie is None or session is None:
            return None
        if session.token.startswith(oidc.OF_OIDC):
            known = self._signed_in(session, cookie)
        elif session.token.startswith(auth.OF_LEDGER):
            name = session.token.removeprefix(auth.OF_LEDGER)
            known = self._valid(await self._runtime.read(tokens.named, name))
        else:
            try:
                known = auth.holder_of(
                    self._access, session.token, lambda token: browser_sessions.proves(session, cookie, token)
                )
            except SecretUnavailable as error:
                raise self._token_gone(error) from None
        if known is not None:
            connection.scope["state"]["session"] = cookie
        return known

    def _signed_in(self, session: BrowserSession, cookie: str) -> Principal | None:
        """Return whom the identity provider has named, if it and what its groups may do are still configured so."""
        if self._oidc is None or not browser_sessions.proves(session, cookie, self._oidc.digest):
            return None
        return oidc.principal_named(session.token)

    def _valid(self, stored: StoredToken | None) -> Principal | None:
        is_valid = stored is not None and stored.is_valid(self._runtime.now_us)
        return _principal(stored) if stored is not None and is_valid else None

    @asynccontextmanager
    async def writing(self, _: object = None) -> AsyncIterator[None]:
        """Write what was refused into the audit log, every now and then and at the end."""
        task = asyncio.create_task(self._write())
        try:
            yield
        finally:
            task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self.refusals.write(everything=True)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.refusals.write()

    def _client(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str:
        peer = None if connection.client is None else connection.client.host
        return client_address(peer, connection.scope["headers"], self._trusted)

    def _make_wait(self, client: str, presented: bytes | None) -> None:
        """Raise 429 if the address has sent too many wrong tokens, and this one is not known to be right."""
        if not presented or auth.is_owner(self._access, presented) or tokens.digest_of(presented) in self._good:
            return
        if wait_s := self.refusals.wait_s(client):
            detail = f"too many wrong tokens came from your address; try again in {wait_s} s"
            headers = {"retry-after": str(wait_s)}
            raise HTTPException(status_code=HTTPStatus.TOO_MANY_REQUESTS, detail=detail, headers=headers)

    async def _stored(self, presented: bytes | None) -> StoredToken | None:
        if presented is None or self._access.owner_only or not tokens.looks_named(presented):
            return None
        return await self._runtime.read(tokens.find, tokens.digest_of(presented))

    def _refused(
        self,
        decision: AccessDecision,
        client: str,
        presented: bytes | None,
        known: Principal | None,
        stored: StoredToken | None,
    ) -> HTTPException:
        detail = decision.advice
        if decision is AccessDecision.NOT_GRANTED and known is not None:
            self.refusals.note_denied(known)
            detail = f"{known.name} is a {known.role.value}: {detail}"
        elif decision is AccessDecision.TOKEN_REQUIRED and presented:
            self.refusals.note(client)
            if stored is not None:
                why = "has expired" if stored.revoked_us is None else "was revoked"
                detail = f"the token {stored.name} {why}; ask for another one"
        return HTTPException(status_code=decision.status, detail=detail)

    def _remember(self, presented: bytes | None) -> None:
        if presented:
            self._good[tokens.digest_of(presented)] = None
            if len(self._good) > GOOD_TOKENS:
                self._good.popitem(last=False)

    def _token_gone(self, error: SecretUnavailable) -> HTTPException:
        if not self._token_is_gone:
            self._token_is_gone = True
            log.error("token_unavailable", extra={"error": str(error)})
        detail = "the token of this listener cannot be read now, so nobody is let in by it; the log says why"
        return HTTPException(status_code=HTTPStatus.SERVICE_UNAVAILABLE, detail=detail)

    def _note_token_back(self) -> None:
        if self._token_is_gone:
            self._token_is_gone = False
            log.info("token_available")


def _caller(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    headers = connection.headers
    return Caller(
        host=headers.get("host"),
        origin=headers.get("origin"),
        fetch_site=headers.get("sec-fetch-site"),
        authorization=headers.get("authorization"),
        proxied=auth.tells_of_proxy(name.lower() for name in headers),
    )


def _principal(stored: StoredToken) -> Principal:
    return Principal(
        name=stored.name,
        role=AccessRole(stored.role),
        sources=None if stored.sources is None else frozenset(stored.sources),
        destinations=None if stored.destinations is None else frozenset(stored.destinations),
    )


def _named_owner(connection: ASGIConnection[Any, Any, Any, Any], known: Principal) -> Principal:
    """Return an owner with the name of the user that the command has given."""
    name = connection.headers.get(ACTOR_HEADER, "")
    if known.role is not AccessRole.OWNER or not name.isprintable() or not 0 < len(name) <= ACTOR_CHARACTERS:
        return known
    return Principal(name=name, role=AccessRole.OWNER)
