"""Asks the OpenID provider: its addresses, its keys, and who a code stands for.

What is fetched is bounded in size and time, no redirect is followed, and only signatures with a public key are
believed: with a shared one, whoever knows the client's secret could sign.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from gapless.console import oidc
from gapless.console.oidc import OidcOptions, SignInAttempt, SignInRefused
from gapless.errors import UserError

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
ANSWER_MOST: Final = 1 << 20
WITHIN_S: Final = 10.0
KEPT_S: Final = 3600.0
KEYS_AGAIN_S: Final = 60.0
"""An unknown key makes the keys be fetched again, but not more often than this."""
AT_ONCE: Final = 4
CLOCKS_DIFFER_S: Final = 60


class ProviderUnavailable(UserError):
    """The provider does not answer as the standard says."""


class _Metadata(msgspec.Struct, gc=False):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Tokens(msgspec.Struct, gc=False):
    id_token: str


@dataclass(slots=True)
class _Kept:
    """What was fetched, and when."""

    metadata: _Metadata
    keys: KeySet
    metadata_at: float
    keys_at: float


class IdentityProvider:
    """One provider. Its addresses and keys are kept for an hour."""

    def __init__(self, options: OidcOptions) -> None:
        self.options = options
        self._client: httpx.AsyncClient | None = None
        self._kept: _Kept | None = None
        self._lock = asyncio.Lock()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def open(self, _: object = None) -> AsyncIterator[None]:
        """Close what was opened, at the end."""
        try:
            yield
        finally:
            if self._client is not None:
                await self._client.aclose()

    async def check(self) -> None:
        """Ask for its addresses and its keys. Raises `ProviderUnavailable`."""
        await self._known()

    async def sign_in_url(self, attempt: SignInAttempt) -> str:
        """Return the address at which the provider asks the person. Raises `ProviderUnavailable`."""
        kept = await self._known()
        return oidc.authorization_url(self.options, kept.metadata.authorization_endpoint, attempt)

    async def claims(self, attempt: SignInAttempt, code: str) -> dict[str, Any]:
        """Return the verified claims about whoever the code stands for.

        Raises `SignInRefused` if the provider refuses the code or its answer cannot be believed, `ProviderUnavailable`
        and `SecretUnavailable`.
        """
        kept = await self._known()
        request = oidc.token_request(self.options, kept.metadata.token_endpoint, attempt, code)
        status, content = await self._ask(request)
        if 400 <= status < 500:  # noqa: PLR2004 - the class of a status
            raise SignInRefused(f"the provider refuses the code (HTTP {status}); try again")
        token = _read(status, content, _Tokens, str(request.url)).id_token
        try:
            decoded = jwt.decode(token, kept.keys, algorithms=ALGORITHMS)
        except InvalidKeyIdError:
            decoded = await self._with_new_keys(token)
        except (JoseError, ValueError) as error:
            raise SignInRefused(f"the provider's token cannot be believed ({type(error).__name__})") from None
        return self._judged(decoded.claims, attempt)

    async def _with_new_keys(self, token: str) -> jwt.Token:
        kept = await self._known(newer_than=time.monotonic() - KEYS_AGAIN_S)
        try:
            return jwt.decode(token, kept.keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError) as error:
            raise SignInRefused(f"the provider's token cannot be believed ({type(error).__name__})") from None

    def _judged(self, claims: dict[str, Any], attempt: SignInAttempt) -> dict[str, Any]:
        rules = jwt.JWTClaimsRegistry(
            leeway=CLOCKS_DIFFER_S,
            iss={"essential": True, "value": self.options.issuer},
            aud={"essential": True, "value": self.options.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": attempt.nonce},
        )
        try:
            rules.validate(claims)
        except JoseError as error:
            raise SignInRefused(f"the provider's token is not for this sign-in ({error})") from None
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self.options.client_id:
            raise SignInRefused("the provider's token is for several, and was not given to this console")
        return claims

    async def _known(self, newer_than: float | None = None) -> _Kept:
        """Return what is known of the provider; its keys fetched after `newer_than`, if that is given."""
        async with self._lock:
            now, kept = time.monotonic(), self._kept
            if kept is None or now - kept.metadata_at > KEPT_S:
                metadata = await self._discover()
                kept = self._kept = _Kept(metadata, await self._fetch_keys(metadata), now, now)
            elif now - kept.keys_at > KEPT_S or (newer_than is not None and kept.keys_at < newer_than):
                kept.keys, kept.keys_at = await self._fetch_keys(kept.metadata), now
            return kept

    async def _discover(self) -> _Metadata:
        url = self.options.issuer.rstrip("/") + "/.well-known/openid-configuration"
        metadata: _Metadata = _read(*await self._ask(httpx.Request("GET", url)), _Metadata, url)
        if metadata.issuer != self.options.issuer:
            raise ProviderUnavailable(f"{url} is of the issuer {metadata.issuer!r}; wanted {self.options.issuer!r}")
        plain = self.options.issuer.startswith("http://")
        for each in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
            if not each.startswith("https://") and not plain:
                raise ProviderUnavailable(f"{url} names {each!r}; wanted https")
        return metadata

    async def _fetch_keys(self, metadata: _Metadata) -> KeySet:
        status, content = await self._ask(httpx.Request("GET", metadata.jwks_uri))
        try:
            return KeySet.import_key_set(_read(status, content, dict[str, Any], metadata.jwks_uri))
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise ProviderUnavailable(f"{metadata.jwks_uri} has no keys that can be read ({error})") from None

    async def _ask(self, request: httpx.Request) -> tuple[int, bytes]:
        content = bytearray()
        if self._client is None:
            self._client = httpx.AsyncClient()
        try:
            async with self._at_once, asyncio.timeout(WITHIN_S):
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    async for part in response.aiter_bytes():
                        content += part
                        if len(content) > ANSWER_MOST:
                            raise ProviderUnavailable(f"{request.url} answers more than {ANSWER_MOST} bytes")
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            raise ProviderUnavailable(f"{request.url} does not answer ({type(error).__name__})") from None
        return response.status_code, bytes(content)


def _read(status: int, content: bytes, wanted: Any, url: str) -> Any:
    if status != 200:  # noqa: PLR2004 - OK
        raise ProviderUnavailable(f"{url} answers HTTP {status}")
    try:
        return msgspec.json.decode(content, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProviderUnavailable(f"{url} answers something else than the standard says") from None
