"""The message that a page shows once after an action: a cookie of a minute, set with the redirect."""

import base64
import binascii
from typing import Final

from litestar.datastructures import Cookie

from gapless.console.api.shared import AnyRequest

FLASH: Final = "gapless_done"
LASTS_S: Final = 60
MOST: Final = 500


def flash_cookie(text: str, *, secure: bool) -> Cookie:
    """Return the cookie that carries the message."""
    value = base64.urlsafe_b64encode(text[:MOST].encode()).decode()
    return Cookie(key=FLASH, value=value, max_age=LASTS_S, path="/", httponly=True, samesite="lax", secure=secure)


def take_flash(request: AnyRequest) -> str:
    """Return the message that the browser brings; "": none."""
    try:
        return base64.urlsafe_b64decode(request.cookies.get(FLASH, "")).decode()[:MOST]
    except (ValueError, binascii.Error):
        return ""
