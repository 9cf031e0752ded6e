"""List the events that earn requests, at the first start: until then the ledger knows of none."""

from datetime import datetime
from typing import Final

from gapless.provider_api.client import PurposeClient
from gapless.provider_api.pages import walk_from
from gapless_reconcilers.kit.contract import ShowsGrant, Window

ENOUGH: Final = 360
"""Events after which the listing ends: on Stripe they earn a reading every half a minute, and take four requests."""


async def list_earning(sender: PurposeClient, stream: str, window: Window, enough: int = ENOUGH) -> list[datetime]:
    """Return when the events of `window` that earn requests occurred; the listing ends once `enough` were seen.

    Empty if the provider's grant depends on no events. Raises `ProviderError`s.
    """
    provider, times = sender.source.provider, list[datetime]()
    grant = provider.capabilities.grant
    if not isinstance(provider, ShowsGrant) or grant is None:
        return times
    async with walk_from(sender, provider.grant_request(stream, window), stream, window) as pages:
        async for page in pages:
            times += [event.occurred_at for event in page.events if event.type in grant.types]
            if len(times) >= enough:
                break
    return times
