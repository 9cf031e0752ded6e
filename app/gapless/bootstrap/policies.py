"""Build the policies of sources from the settings. Needs no ledger, so that `gapless check` starts at once."""

from collections.abc import Sequence
from dataclasses import replace

from gapless.domain import Mode, Sources
from gapless.reconcile.heartbeat import SHORTEST
from gapless.reconcile.pace import NEVER, Pace
from gapless.reconcile.policy import SourcePolicy
from gapless.settings import PaceStrategy, SourceSettings
from gapless_reconcilers.kit.contract import Capabilities, Coverage, Provider, Reading


def mode_of(settings: SourceSettings, provider: Provider) -> Mode:
    """Return the ways in which the source's events arrive.

    A provider that lists nothing has only webhooks. A provider whose list is consumed sends none meanwhile.
    """
    known = provider.capabilities
    if known.coverage is Coverage.NONE:
        return Mode.WEBHOOK
    if known.reading is Reading.CONSUME and settings.mode is Mode.HYBRID:
        return Mode.POLL
    return settings.mode


def capabilities_of(settings: SourceSettings, provider: Provider) -> Capabilities:
    """Return the provider's capabilities, with the grace of the configuration if it sets one."""
    known = provider.capabilities
    return known if settings.grace is None else replace(known, grace=settings.grace)


def make_policy(settings: SourceSettings, provider: Provider, public_url: str | None) -> SourcePolicy:
    """Return the policy by which the source is read."""
    known = capabilities_of(settings, provider)
    shortest = max(settings.every or SHORTEST, known.least_interval)
    adaptive = settings.pace is PaceStrategy.ADAPTIVE
    long_poll = settings.pace is PaceStrategy.LONG_POLL and known.reading is Reading.CONSUME
    return SourcePolicy(
        pace=Pace(
            shortest=shortest,
            longest=max(shortest, settings.every_max),
            adaptive=adaptive,
            long_poll=long_poll,
        ),
        lookback=settings.lookback,
        sweep_every=settings.sweep or NEVER,
        slices=settings.slices,
        rate=settings.requests_per_second or known.requests_per_second,
        grant=settings.effective_grant(known),
        capabilities=known,
        request_within=settings.request_within,
        webhook_url=webhook_url(public_url, settings.name),
        share_account=settings.share_account,
        repair=settings.repair,
        is_grace_set=settings.grace is not None,
    )


def webhook_url(public_url: str | None, source: str) -> str:
    """Return the address to which the provider sends the source's webhooks; without a public address, only its path."""
    return f"{(public_url or '').rstrip('/')}/webhooks/{source}"


def make_policies(
    settings: Sequence[SourceSettings], known: Sources, public_url: str | None
) -> dict[str, SourcePolicy]:
    """Return the policy of each source, by name."""
    return {each.name: make_policy(each, known[each.name].provider, public_url) for each in settings}
