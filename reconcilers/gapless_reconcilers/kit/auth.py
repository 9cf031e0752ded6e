"""Credentials as `httpx.Auth`, so that the engine adds them and no request that a provider builds holds any.

The secret stays a `Secret` until the request leaves: no repr, message or log of these objects shows it.
"""

from collections.abc import Generator

import httpx

from gapless_reconcilers.kit.contract import Secret


class BearerAuth(httpx.Auth):
    """`Authorization: Bearer <token>`."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to `request`."""
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        yield request

    def __repr__(self) -> str:
        return "BearerAuth(***)"


class PathAuth(httpx.Auth):
    """A token in the path (Telegram): it replaces `placeholder` while the request is on its way, and only then."""

    def __init__(self, token: Secret, placeholder: str) -> None:
        self._token = token
        self._placeholder = placeholder

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the token into the address of `request`, and take it out again."""
        shown = request.url
        request.url = shown.copy_with(path=shown.path.replace(self._placeholder, self._token.reveal()))
        try:
            yield request
        finally:
            request.url = shown

    def __repr__(self) -> str:
        return "PathAuth(***)"
