"""Sign-in of people by OpenID Connect: the rules. Pure.

The authorization code flow of OpenID Connect Core 1.0 with PKCE (RFC 7636), for every client. What an attempt must
remember is in a cookie of the browser that began it, so that any replica can end it and no other browser can.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import httpx

from gapless.operations.principals import AccessRole, Principal
from gapless.settings import OidcSettings
from gapless_reconcilers.kit.contract import Secret

CALLBACK: Final = "/login/oidc/callback"
ATTEMPT_COOKIE: Final = "gapless_sign_in"
ATTEMPT_LASTS: Final = timedelta(minutes=10)
NAME_MOST: Final = 80
OF_OIDC: Final = "oidc:"
"""The beginning of the name by which a session knows somebody who was signed in so."""


class SignInRefused(Exception):
    """The person may not come in, for the reason given. It can be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcOptions:
    """Who signs people in, and what their groups may do."""

    issuer: str
    client_id: str
    url: str
    """Address of the console as browsers reach it, without a path."""
    secret: Callable[[], Secret | None]
    """Return the secret of the client now; None: it has none. Raises `SecretUnavailable`."""
    operators: frozenset[str] = frozenset()
    """Groups whose members are operators."""
    viewers: frozenset[str] = frozenset()
    """Groups whose members are viewers."""
    groups_claim: str = "groups"
    name_claim: str = "email"
    scopes: tuple[str, ...] = ("openid", "email", "profile")

    @property
    def redirect_uri(self) -> str:
        """The address to which the provider sends a browser back."""
        return self.url.rstrip("/") + CALLBACK

    @property
    def digest(self) -> str:
        """What a session was begun under: whoever changes the provider or a group ends the sessions."""
        told = (self.issuer, self.client_id, *sorted(self.operators), "", *sorted(self.viewers), self.groups_claim)
        return hashlib.sha256("\0".join(told).encode()).hexdigest()


def options_of(settings: OidcSettings) -> OidcOptions | None:
    """Return what `[oidc]` says; None: nobody signs people in."""
    if settings.issuer is None or settings.client_id is None or settings.url is None:
        return None
    secret = settings.client_secret
    return OidcOptions(
        issuer=settings.issuer,
        client_id=settings.client_id,
        url=settings.url,
        secret=(lambda: None) if secret is None else secret.read,
        operators=frozenset(settings.operators),
        viewers=frozenset(settings.viewers),
        groups_claim=settings.groups_claim,
        name_claim=settings.name_claim,
        scopes=settings.scopes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAttempt:
    """One attempt to sign in, as the cookie of the browser keeps it."""

    state: str
    nonce: str
    verifier: str
    next: str

    def as_cookie(self) -> str:
        """Return the value of its cookie."""
        text = urlencode({name: getattr(self, name) for name in self.__slots__})
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def begin(next_: str) -> SignInAttempt:
    """Return an attempt that ends at the page `next_`."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return SignInAttempt(state=state, nonce=nonce, verifier=verifier, next=next_)


def attempt_of(cookie: str | None) -> SignInAttempt | None:
    """Return the attempt that a cookie keeps; None: it keeps none."""
    try:
        text = base64.urlsafe_b64decode((cookie or "") + "=" * (-len(cookie or "") % 4)).decode()
        return SignInAttempt(**dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=4)))
    except (ValueError, TypeError):
        return None


def authorization_url(options: OidcOptions, endpoint: str, attempt: SignInAttempt) -> str:
    """Return the address at the provider that asks the person."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).decode().rstrip("=")
    asked = {
        "response_type": "code",
        "client_id": options.client_id,
        "redirect_uri": options.redirect_uri,
        "scope": " ".join(options.scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return str(httpx.URL(endpoint).copy_merge_params(asked))


def came_back(params: Mapping[str, str], attempt: SignInAttempt | None, issuer: str) -> tuple[SignInAttempt, str]:
    """Return the attempt that ends here, and the code that the provider sends with it. Raises `SignInRefused`."""
    if attempt is None or not secrets.compare_digest(attempt.state.encode(), params.get("state", "").encode()):
        raise SignInRefused("this browser has not begun it, or more than ten minutes ago; try again")
    if params.get("iss", issuer) != issuer:
        raise SignInRefused("another provider has answered")
    if "error" in params:
        raise SignInRefused(f"the provider says {params['error'][:80]!r}")
    if not params.get("code"):
        raise SignInRefused("the provider has sent no code")
    return attempt, params["code"]


def token_request(options: OidcOptions, endpoint: str, attempt: SignInAttempt, code: str) -> httpx.Request:
    """Return the request that exchanges a code for tokens. Raises `SecretUnavailable`."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": options.redirect_uri,
        "code_verifier": attempt.verifier,
        "client_id": options.client_id,
    }
    secret = options.secret()
    if secret is not None:
        form["client_secret"] = secret.reveal()
    return httpx.Request("POST", endpoint, data=form, headers={"accept": "application/json"})


def principal_of(options: OidcOptions, claims: Mapping[str, Any]) -> Principal:
    """Return who the verified claims say that it is. The greater role of several groups counts.

    Raises `SignInRefused` if no group of the person opens the console. An address of mail counts as a name only if the
    provider has verified it.
    """
    told = claims.get(options.groups_claim)
    groups = frozenset(each for each in (told if isinstance(told, list) else [told]) if isinstance(each, str))
    if groups & options.operators:
        role = AccessRole.OPERATOR
    elif groups & options.viewers:
        role = AccessRole.VIEWER
    else:
        raise SignInRefused("no group of yours opens this console; ask whoever keeps its configuration")
    return Principal(name=_name_of(options, claims), role=role)


def _name_of(options: OidcOptions, claims: Mapping[str, Any]) -> str:
    name = claims.get(options.name_claim)
    if options.name_claim == "email" and claims.get("email_verified") is False:
        name = None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_MOST:
        name = str(claims["sub"])
    if not name.isprintable() or not 0 < len(name) <= NAME_MOST:
        raise SignInRefused("the provider names you by what cannot be shown")
    return name


def session_name(principal: Principal) -> str:
    """Return the name by which a session knows `principal`."""
    return f"{OF_OIDC}{principal.role.value}:{principal.name}"


def principal_named(name: str) -> Principal:
    """Return the principal of a session with that name."""
    role, _, own = name.removeprefix(OF_OIDC).partition(":")
    return Principal(name=own, role=AccessRole(role))
