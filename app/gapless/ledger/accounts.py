"""The account behind a source's key: whose it is, what is held while the key reads another one, and who shares it."""

from typing import NamedTuple

from sqlalchemy import Connection, func, select, tuple_, update

from gapless.ledger.tables import SOURCE, STREAM

OTHER_ACCOUNT = "other_account"
"""The reason of a parked source, and of held deliveries, when the key reads another account than the source's."""


class Accounts(NamedTuple):
    """The account that a source belongs to, and the other one that its key reads, if it does."""

    own: str | None
    other: str | None


def read(connection: Connection, source_id: int) -> Accounts:
    """Return the accounts of a source."""
    query = select(SOURCE.c.account, SOURCE.c.other_account).where(SOURCE.c.id == source_id)
    own, other = connection.execute(query).one()
    return Accounts(own, other)


def note(connection: Connection, source_id: int, fingerprint: str | None, now_us: int) -> Accounts:
    """Note the account that the key reads; None: it cannot be read, and nothing changes. Return what holds now.

    The first account that is read is the source's. Another one parks the source, until a person accepts it or the key
    reads the source's own account again.
    """
    known = read(connection, source_id)
    if fingerprint is None:
        return known
    if known.own is None:
        _change(connection, source_id, account=fingerprint, account_us=now_us)
    elif known.own != fingerprint:
        _park(connection, source_id, fingerprint, now_us)
    elif known.other is not None:
        _unpark(connection, source_id, now_us)
    return read(connection, source_id)


def accept(connection: Connection, source_id: int, now_us: int) -> Accounts:
    """Make the other account the source's own, and have its list read again. Return what held before."""
    known = read(connection, source_id)
    if known.other is not None:
        _change(connection, source_id, account=known.other, account_us=now_us, next_pass_us=now_us)
        _unpark(connection, source_id, now_us)
        connection.execute(update(STREAM).where(STREAM.c.source_id == source_id).values(parked_reason=None))
    return known


def had_before(connection: Connection, source_id: int) -> list[str]:
    """Return the names of the active sources that had this source's account before it did."""
    since = func.coalesce(SOURCE.c.account_us, 0)
    mine = connection.execute(select(SOURCE.c.account, since).where(SOURCE.c.id == source_id)).one()
    earlier = (SOURCE.c.account == mine[0], tuple_(since, SOURCE.c.id) < (mine[1], source_id))
    query = select(SOURCE.c.name).where(*earlier, SOURCE.c.state != "retired").order_by(SOURCE.c.name)
    return list(connection.execute(query).scalars())


def _park(connection: Connection, source_id: int, fingerprint: str, now_us: int) -> None:
    _change(connection, source_id, other_account=fingerprint)
    where = (SOURCE.c.id == source_id, SOURCE.c.state == "active")
    parked = {"state": "parked", "reason": OTHER_ACCOUNT, "state_us": now_us}
    connection.execute(update(SOURCE).where(*where).values(**parked))


def _unpark(connection: Connection, source_id: int, now_us: int) -> None:
    _change(connection, source_id, other_account=None)
    where = (SOURCE.c.id == source_id, SOURCE.c.state == "parked", SOURCE.c.reason == OTHER_ACCOUNT)
    connection.execute(update(SOURCE).where(*where).values(state="active", reason=None, state_us=now_us))


def _change(connection: Connection, source_id: int, **values: object) -> None:
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(**values))
