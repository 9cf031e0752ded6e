"""Check whose account the key of a source reads, before anything is recorded from it."""

from gapless.ledger import accounts, dead_letters
from gapless.provider_api.health import read_account
from gapless.reconcile.context import LeasedSource
from gapless_reconcilers.kit.errors import NeedsOperator


class OtherAccount(NeedsOperator):
    """The key reads another account than the source's, so that nothing may be recorded."""


class AccountShared(NeedsOperator):
    """A source that had the account before reads it too, so that each event would be counted twice."""


async def compare(leased: LeasedSource) -> None:
    """Compare the account of our key with the source's. Raises `OtherAccount`; then listed events are held."""
    account = await read_account(leased.client)
    leased.require_same_key()
    found = await leased.write(
        accounts.note,
        source_id=leased.source.id,
        fingerprint=None if account is None else account.fingerprint,
        now_us=leased.runtime.now_us,
    )
    if found.other is None:
        leased.memory.account_us = leased.runtime.elapsed_us
        return
    while await leased.write(
        dead_letters.hold_listed,
        source_id=leased.source.id,
        reason=accounts.OTHER_ACCOUNT,
        now_us=leased.runtime.now_us,
    ):
        pass
    raise OtherAccount(
        f"the key reads account {found.other}, and the source is that of {found.own}; use a key of that account, "
        f"or run gapless source accept-account {leased.source.name}"
    )


async def require_own(leased: LeasedSource) -> None:
    """Raise `AccountShared` if a source that had the account before reads it too, and this one may not share it."""
    if leased.policy.share_account:
        return
    others = await leased.runtime.read(accounts.had_before, source_id=leased.source.id)
    if others:
        raise AccountShared(
            f"source {leased.source.name!r} reads the same account as {', '.join(others)}: each event would be "
            "recorded twice; remove one, or set share_account = true"
        )
