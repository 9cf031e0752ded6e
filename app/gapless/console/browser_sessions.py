"""Sessions of browsers: the cookie, what it proves, and the secret of each form.

A form carries an HMAC of its own cookie. A page of another site cannot read the cookie, so it cannot make a form that
is believed.
"""

import hashlib
import hmac
from datetime import timedelta
from typing import Final

from gapless.domain import span_us
from gapless.ledger import sessions
from gapless.ledger.sessions import BrowserSession
from gapless.ledger.tokens import digest_of
from gapless.runtime import Runtime

COOKIE: Final = "gapless_session"
LASTS: Final = timedelta(hours=12)
"""Time after which a person signs in again: a shift."""
FORM_FIELD: Final = "csrf"


async def begin(runtime: Runtime, name: str, token: bytes) -> str:
    """Begin the session of a token of that name; return its cookie. Raises `StoreError`."""
    cookie, now_us = sessions.new_cookie(), runtime.now_us
    session = BrowserSession(
        token=name,
        proof=sessions.proof_of(cookie, digest_of(token).encode()),
        created_us=now_us,
        until_us=now_us + span_us(LASTS),
    )
    await runtime.write(sessions.begin, cookie, session)
    return cookie


async def find(runtime: Runtime, cookie: str) -> BrowserSession | None:
    """Return the session of the cookie; None: there is none, or it is over. Raises `StoreError`."""
    return await runtime.read(sessions.find, cookie, runtime.now_us)


async def end(runtime: Runtime, cookie: str) -> None:
    """End the session in all processes. Raises `StoreError`."""
    await runtime.write(sessions.end, cookie)


def proves(session: BrowserSession, cookie: str, token: str) -> bool:
    """Return True if the session was begun with this token."""
    return hmac.compare_digest(session.proof, sessions.proof_of(cookie, digest_of(token.encode()).encode()))


def form_secret(cookie: str) -> str:
    """Return the secret that each form of this session carries."""
    return hmac.new(cookie.encode(), b"form", hashlib.sha256).hexdigest()


def is_own_form(cookie: str, sent: str) -> bool:
    """Return True if the form is one of this session."""
    return hmac.compare_digest(form_secret(cookie), sent.encode("ascii", "replace").decode())
