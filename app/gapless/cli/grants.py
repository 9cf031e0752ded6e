"""What a vendor grants, in words: for `gapless providers` and `gapless check`."""

from datetime import timedelta
from typing import Final

from gapless.text import format_span
from gapless_reconcilers.kit.contract import Capabilities, Coverage, Grant, Pool

POOLS: Final = {
    Pool.ACCOUNT: "",
    Pool.PLATFORM: ", for all connected accounts together",
    Pool.ADDRESS: ", for all accounts that are read from one address",
}


def grant_in_words(grant: Grant) -> str:
    """Return what is granted, and where that was read."""
    text = f"{grant.requests:,} requests in {format_span(grant.period)}"
    if grant.per_event:
        text += f", or {grant.per_event:,} for each {' and '.join(grant.types)} in it if that is more"
    text += POOLS[grant.pool]
    read_on = f"read {grant.read_on.isoformat()}" if grant.read_on is not None else ""
    origin = ", ".join(each for each in (grant.source, read_on) if each)
    return f"{text} ({origin})" if origin else text


def limits_in_words(capabilities: Capabilities) -> str:
    """Return what may be read of a vendor's list."""
    if capabilities.coverage is Coverage.NONE:
        return "-"
    grant, least = capabilities.effective_grant, capabilities.least_interval
    text = "nothing is published" if grant is None else grant_in_words(grant)
    return f"{text}; at most every {format_span(least)}" if least > timedelta(0) else text
