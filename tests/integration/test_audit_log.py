"""The chain of the audit log on each kind of store: what was changed, removed or inserted is found and named."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from gapless.domain import DAY_US
from gapless.ledger import audit_log
from gapless.ledger.audit_log import UNKEYED, Action, AuditKey, ChainGone
from gapless.ledger.audit_proof import LogProof, verify
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import AUDIT_HEAD, AUDIT_LOG
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
KEY, OTHER = AuditKey(Secret("the-key-of-the-audit-log")), AuditKey(Secret("another-key-of-the-log"))
DID = Action(at_us=1, actor="ann", role="operator", action="dead.requeue", subject="shop", detail="3", reason="fixed")
SECOND = AUDIT_LOG.c.number == 2
THIRD_DIGEST = select(AUDIT_LOG.c.digest).where(AUDIT_LOG.c.number == 3).scalar_subquery()


def append(connection: Connection, count: int = 1, key: AuditKey = KEY, **changes: Any) -> None:
    for _ in range(count):
        audit_log.add(connection, replace(DID, **changes), key)


async def proof(store: Store, *keys: AuditKey, noted: tuple[int, str] | None = None) -> LogProof:
    return await store.read(verify, keys or (KEY,), noted)


async def test_an_untouched_log_is_proven_with_its_reasons(store: Store) -> None:
    await store.write(append, 3)
    found = await proof(store)
    assert (found.rows, found.head.number, found.findings) == (3, 3, ())
    assert (await proof(store, OTHER)).findings[0].startswith("row 1 was written with another key")


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        (update(AUDIT_LOG).where(SECOND).values(actor="bob"), "row 2 (dead.requeue of shop, by bob) was"),
        (update(AUDIT_LOG).where(SECOND).values(at_us=0), "row 2 (dead.requeue of shop, by ann) was"),
        (update(AUDIT_LOG).where(SECOND).values(reason=None), "row 2 (dead.requeue of shop, by ann) was"),
        (delete(AUDIT_LOG).where(SECOND), "row 2 is missing"),
        (delete(AUDIT_LOG).where(AUDIT_LOG.c.number >= 3), "rows 3 to 4 are missing"),
        (delete(AUDIT_LOG).where(AUDIT_LOG.c.number == 1), "row 1 is missing"),
        (
            insert(AUDIT_LOG).values(at_us=1, actor="bob", action="x", subject="y", number=5, digest=f"{KEY.id}:00"),
            "row 5 (x of y, by bob) was changed or inserted",
        ),
        (insert(AUDIT_LOG).values(at_us=1, actor="bob", action="x", subject="y"), "row with id 5 is in no chain"),
        (
            update(AUDIT_HEAD).values(number=3, digest=THIRD_DIGEST),
            "row 4 lies beyond the end of the log, which is row 3",
        ),
        (update(AUDIT_HEAD).values(seal=""), "the seal of the last row, 4, is not by the key of this log"),
    ],
)  # fmt: skip
async def test_a_row_that_was_tampered_with_is_named(store: Store, tampering: Any, finding: str) -> None:
    await store.write(append, 4)
    await store.write(lambda connection: connection.execute(tampering))
    found = (await proof(store)).findings
    assert any(each.startswith(finding) for each in found), found


async def test_a_log_that_was_cut_with_its_head_set_back_is_found_by_the_next_row(store: Store) -> None:
    """Whoever lacks the key cannot seal another row as the last one."""
    await store.write(append, 4)

    def cut(connection: Connection) -> None:
        digest = connection.execute(select(AUDIT_LOG.c.digest).where(AUDIT_LOG.c.number == 2)).scalar_one()
        connection.execute(delete(AUDIT_LOG).where(AUDIT_LOG.c.number > 2))
        connection.execute(update(AUDIT_HEAD).values(number=2, digest=digest))

    head = (await proof(store)).head
    await store.write(cut)
    assert (await proof(store)).findings == ("the seal of the last row, 2, is not by the key of this log",)
    await store.write(append)
    assert [each[:60] for each in (await proof(store)).findings] == [
        "row 3 says that the end of the log was not as Gapless had se"
    ]
    assert "row 4 is gone or is another one than was noted" in (await proof(store, noted=(4, head.digest))).findings


async def test_without_its_head_the_log_takes_nothing(store: Store) -> None:
    await store.write(append)
    await store.write(lambda connection: connection.execute(delete(AUDIT_HEAD)))
    with pytest.raises(ChainGone, match="put it back from a backup"):
        await store.write(append)


async def test_a_new_key_goes_on_and_says_so(store: Store) -> None:
    await store.write(append, 2, OTHER)
    await store.write(append, 1)
    assert [each[:12] for each in (await proof(store, KEY, OTHER)).findings] == ["row 3 says t"]
    assert len((await proof(store, KEY)).findings) == 3  # the two rows of the other key too


async def test_the_log_is_pruned_by_days_and_the_chain_goes_on(store: Store) -> None:
    await store.write(append, 3, at_us=5)
    await store.write(append, 2, at_us=DAY_US + 5)
    pruned = await store.write(audit_log.prune, DAY_US + 4, key=KEY, now_us=DAY_US + 9)
    assert (pruned.count, pruned.after) == (3, None)
    again = await store.write(audit_log.prune, DAY_US + 4, key=KEY, now_us=DAY_US + 9)
    assert again.count == 0
    found = await proof(store)
    assert (found.rows, found.pruned, found.findings) == (3, 3, ())
    last = (await store.read(audit_log.rows))[-1]
    assert (last["action"], last["actor"], last["subject"]) == ("log.prune", "daemon", "1 to 3")


async def test_who_removes_the_oldest_rows_himself_cannot_make_it_look_like_pruning(store: Store) -> None:
    await store.write(append, 3)

    def remove(connection: Connection) -> None:
        digest = connection.execute(select(AUDIT_LOG.c.digest).where(AUDIT_LOG.c.number == 2)).scalar_one()
        connection.execute(delete(AUDIT_LOG).where(AUDIT_LOG.c.number <= 2))
        connection.execute(update(AUDIT_HEAD).values(pruned=2, pruned_digest=digest, pruned_seal=f"{KEY.id}:00"))

    await store.write(remove)
    assert (await proof(store)).findings == ("the seal of the last pruned row, 2, is not by the key of this log",)


async def test_rows_from_before_the_chain_are_told_apart(store: Store) -> None:
    await store.write(lambda c: c.execute(insert(AUDIT_LOG).values(at_us=1, actor="a", action="x", subject="y")))
    await store.write(append)
    found = await proof(store)
    assert (found.unchained, found.rows, found.findings) == (1, 1, ())


async def test_replicas_that_write_together_make_one_chain(postgres_url: str) -> None:
    stores = [open_store(postgres_url) for _ in range(3)]
    try:
        await asyncio.gather(*(each.write(append, 20, actor=f"of {n}") for n, each in enumerate(stores)))
        found = await proof(stores[0])
        assert (found.rows, found.findings) == (60, ())
    finally:
        for each in stores:
            await each.close()


async def test_replicas_that_prune_together_prune_once(postgres_url: str) -> None:
    stores = [open_store(postgres_url) for _ in range(3)]
    try:
        await stores[0].write(append, 5, at_us=5)
        prune = partial(audit_log.prune, before_us=DAY_US, key=KEY, now_us=DAY_US)
        pruned = await asyncio.gather(*(each.write(prune) for each in stores))
        assert sorted(each.count for each in pruned) == [0, 0, 5]
        found = await proof(stores[0])
        assert (found.rows, found.pruned, found.findings) == (1, 5, ())
    finally:
        for each in stores:
            await each.close()


def test_the_key_is_in_no_text() -> None:
    assert "the-key-of-the-audit-log" not in f"{KEY!r}{KEY.id}"
    assert not UNKEYED.is_secret
