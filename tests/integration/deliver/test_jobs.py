"""Jobs on many events: each event once, whatever is killed, and new events do not wait for them."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from gapless.domain import Via, system_clock, to_us
from gapless.ledger import audit_log, jobs
from gapless.ledger.jobs import JobKind, JobState
from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, JOB
from gapless.operations import jobs as operations
from gapless.operations.context import ApprovalNeeded, OperationContext, OperationForbidden, OperationRefused
from gapless.operations.jobs import JobRunner, next_size, paced, work, work_to_end
from gapless.operations.principals import AccessRole, Principal
from gapless.operations.registry import perform

pytestmark = pytest.mark.anyio
COUNT = 1_050
ON_SQLITE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)


class Shop:
    """A ledger with 1,050 events of `acme` that nothing is owed for, and operations on it."""

    def __init__(self, setup: Any) -> None:
        self.setup = setup
        self.context = OperationContext(runtime=setup.runtime, evidence=None, stream_ids=None)  # type: ignore[arg-type]

    async def do(self, name: str, **args: Any) -> dict[str, Any]:
        return await perform(self.context, name, args)

    async def replay(self, **args: Any) -> int:
        """Begin a replay of everything, and return the number of its job."""
        done = await self.do("event.replay", destination="app", since="2020-01-01T00:00:00Z", **args)
        return int(done["job"])

    async def job(self, number: int) -> jobs.StoredJob:
        found: jobs.StoredJob | None = await self.setup.store.read(jobs.find, job_id=number)
        assert found is not None
        return found

    async def count(self, state: str) -> int:
        query = select(func.count()).where(DELIVERY.c.state == state)
        return int(await self.setup.store.read(lambda c: c.execute(query).scalar_one()))

    async def change(self, statement: Any) -> int:
        return int(await self.setup.writer.submit(lambda c: c.execute(statement).rowcount))


@pytest.fixture
async def shop(setup: Any) -> Shop:
    now = system_clock()
    sightings = [setup.sighting(f"evt_{n}", type=f"t{n % 2}", occurred_at=now) for n in range(COUNT)]
    for at in range(0, COUNT, 500):
        await setup.record(*sightings[at : at + 500])
    shop = Shop(setup)
    await shop.change(DELIVERY.delete())
    return shop


async def test_a_job_owes_each_event_once_and_says_when_it_is_done(shop: Shop) -> None:
    number = await shop.replay(note="the handler was broken")
    ended = await work_to_end(shop.setup.runtime, number)
    assert (ended.state, ended.planned, ended.done, ended.left_out) == (JobState.FINISHED, COUNT, COUNT, 0)
    assert await shop.count("pending") == COUNT
    rows = await shop.setup.store.read(audit_log.rows)
    begun, done = [(row["action"], row["subject"], row["detail"], row["reason"]) for row in rows]
    assert begun == ("event.replay", "app", f'{{"job":{number},"count":{COUNT}}}', "the handler was broken")
    assert done == ("event.replay", "app", f'{{"job":{number},"done":{COUNT},"left_out":0}}', begun[3])


@ON_SQLITE
async def test_few_events_need_no_job(shop: Shop) -> None:
    done = await shop.do("event.replay", destination="app", since="2020-01-01T00:00:00Z", types=["t1"])
    assert done == {"replayed": COUNT // 2, "without_payload": 0}
    assert await shop.setup.store.read(jobs.newest, only_running=False) == []


async def test_trap_a_batch_that_is_cut_off_is_neither_lost_nor_doubled(shop: Shop) -> None:
    number = await shop.replay()
    job = await shop.job(number)
    batch = await shop.setup.store.read(jobs.next_batch, job=job, limit=100)

    def killed(connection: Any) -> None:
        assert jobs.advance(connection, job, batch, now_us=1, next_us=1) is not None
        raise RuntimeError("killed before the commit")

    with pytest.raises(RuntimeError, match="killed"):
        await shop.setup.writer.submit(killed)
    assert (await shop.job(number), await shop.count("pending")) == (job, 0)
    first = await shop.setup.writer.submit(jobs.advance, job, batch, now_us=1, next_us=1)
    again = await shop.setup.writer.submit(jobs.advance, job, batch, now_us=1, next_us=1)
    assert (first.done, again, await shop.count("pending")) == (100, None, 100)
    assert (await work_to_end(shop.setup.runtime, number)).done == COUNT


async def test_a_job_goes_on_in_another_process(shop: Shop) -> None:
    number = await shop.replay()
    rounds = 0
    while (await shop.job(number)).state is JobState.RUNNING:
        await JobRunner(shop.setup.runtime, lambda: None).work_due()  # a new one each time, as after a restart
        await shop.change(update(DELIVERY).values(state="delivered"))
        rounds += 1
    assert (await shop.job(number)).done == COUNT
    assert await shop.count("delivered") == COUNT
    assert rounds > 5


@ON_SQLITE
async def test_trap_sequin_a_job_gives_no_more_than_is_taken(shop: Shop) -> None:
    number = await shop.replay()
    runner = JobRunner(shop.setup.runtime, lambda: None)
    for _ in range(10):
        await runner.work_due()
    given = (await shop.job(number)).done
    assert 0 < given <= 2 * operations.FIRST
    await shop.change(update(DELIVERY).values(state="delivered"))
    await runner.work_due()
    assert (await shop.job(number)).done > given


@ON_SQLITE
async def test_live_events_go_first_while_there_is_a_backlog(shop: Shop) -> None:
    number = await shop.replay()
    await shop.setup.record(*(shop.setup.sighting(f"live_{n}") for n in range(200)))
    runner = JobRunner(shop.setup.runtime, lambda: None)
    for _ in range(5):
        await runner.work_due()
    assert (await shop.job(number)).done == 0


@ON_SQLITE
async def test_a_rate_is_kept_whatever_waits(shop: Shop) -> None:
    number = await shop.replay(rate=40.0)
    runner = JobRunner(shop.setup.runtime, lambda: None)
    for _ in range(5):
        await runner.work_due()
    job = await shop.job(number)
    assert job.done == 40
    assert job.next_us >= job.created_us + 1_000_000
    assert (paced(10_000_000), paced(25_000), paced(1)) == (1, 40, operations.LARGEST)


def test_batches_grow_while_all_is_taken_and_shrink_while_not() -> None:
    assert next_size(50, 0) == (100, 100)
    assert next_size(400, 0) == (500, 500)
    assert next_size(100, 25) == (100, 100)
    assert next_size(100, 26) == (100, 0)
    assert next_size(100, 101) == (50, 0)
    assert next_size(30, 501) == (25, 0)


@ON_SQLITE
async def test_a_job_that_was_put_off_by_a_clock_that_was_ahead_goes_on(shop: Shop) -> None:
    number = await shop.replay()
    await shop.change(update(JOB).values(next_us=to_us(system_clock()) + 3_600_000_000))
    await JobRunner(shop.setup.runtime, lambda: None).work_due()
    assert (await shop.job(number)).done > 0


async def test_a_cancelled_job_does_nothing_more(shop: Shop) -> None:
    number = await shop.replay()
    runner = JobRunner(shop.setup.runtime, lambda: None)
    await runner.work_due()
    job = await shop.job(number)
    batch = await shop.setup.store.read(jobs.next_batch, job=job, limit=10)
    assert await shop.do("job.cancel", ids=[number]) == {"cancelled": [number]}
    assert await shop.setup.writer.submit(jobs.advance, job, batch, now_us=1, next_us=1) is None
    assert await runner.work_due() is False
    assert await shop.count("pending") == job.done > 0
    with pytest.raises(OperationRefused, match=r"has ended already \(cancelled\)"):
        await shop.do("job.cancel", ids=[number])
    for unknown in (999, 2**70):
        with pytest.raises(OperationRefused, match="there is no job"):
            await shop.do("job.cancel", ids=[unknown])


@ON_SQLITE
async def test_a_filter_narrows_a_replay(shop: Shop) -> None:
    await shop.setup.record(*(shop.setup.sighting(f"lost_{n}", Via.LIST) for n in range(7)))
    await shop.change(update(EVENT).where(EVENT.c.key.like("lost%")).values(missed_cause="unexplained"))
    await shop.change(DELIVERY.delete())
    plan = await shop.do("event.replay", destination="app", since="2020-01-01T00:00:00Z", missed=True, dry_run=True)
    assert plan["count"] == 7
    number = await shop.replay(missed=True, rate=1000.0)
    ended = await work_to_end(shop.setup.runtime, number)
    assert (ended.done, await shop.count("pending")) == (7, 7)
    none = await shop.do("event.replay", destination="app", since="2020-01-01T00:00:00Z", object="cus_1")
    assert none["replayed"] == 0


@ON_SQLITE
async def test_events_that_come_later_are_not_part_of_a_job(shop: Shop) -> None:
    number = await shop.replay()
    await shop.setup.record(shop.setup.sighting("later"))
    await shop.change(DELIVERY.delete())
    assert (await work_to_end(shop.setup.runtime, number)).done == COUNT


@ON_SQLITE
async def test_events_without_a_payload_are_left_out_and_counted(shop: Shop) -> None:
    await shop.change(update(EVENT).where(EVENT.c.key == "evt_7").values(payload_id=None))
    ended = await work_to_end(shop.setup.runtime, await shop.replay())
    assert (ended.done, ended.left_out) == (COUNT - 1, 1)


@pytest.mark.parametrize(("operation", "left"), [("dead.requeue", "pending"), ("dead.discard", None)])
async def test_many_dead_letters_are_settled_by_a_job(shop: Shop, operation: str, left: str | None) -> None:
    owed = {"destination_id": shop.setup.destination_id, "state": "dead", "reason": "timeout", "attempts": 15}
    seqs = await shop.setup.store.read(lambda c: c.execute(select(EVENT.c.seq)).scalars().all())
    rows = [{**owed, "event_seq": seq, "next_us": 1, "created_us": 1} for seq in seqs]
    await shop.setup.writer.submit(lambda c: c.execute(insert(DELIVERY), rows).rowcount)
    done = await shop.do(operation, note="looked into")
    assert done["count"] == COUNT
    ended = await work_to_end(shop.setup.runtime, done["job"])
    assert (ended.kind, ended.done, ended.reason) == (JobKind(operation), COUNT, "looked into")
    assert await shop.count("dead") == 0
    assert len(await shop.setup.deliveries()) == (COUNT if left else 0)


@ON_SQLITE
async def test_a_job_for_a_destination_that_is_gone_says_so(shop: Shop) -> None:
    number = await shop.replay()
    await shop.change(update(DESTINATION).values(state="retired"))
    await JobRunner(shop.setup.runtime, lambda: None).work_due()
    job = await shop.job(number)
    assert (job.state, job.last_error) == (JobState.FAILED, "destination 'app' is not configured any more")


@ON_SQLITE
async def test_a_job_that_cannot_be_read_waits_and_stops_no_other(shop: Shop) -> None:
    broken, fine = await shop.replay(), await shop.replay()
    await shop.change(update(JOB).where(JOB.c.id == broken).values(plan="{}"))
    await JobRunner(shop.setup.runtime, lambda: None).work_due()
    job = await shop.job(broken)
    assert job.state is JobState.RUNNING
    assert job.last_error
    assert job.next_us > to_us(system_clock())
    assert (await shop.job(fine)).done > 0


@ON_SQLITE
async def test_who_is_limited_to_a_source_sees_and_ends_only_its_jobs(shop: Shop) -> None:
    number = await shop.replay()
    ann = Principal(name="ann", role=AccessRole.OPERATOR, sources=frozenset(("acme",)))
    limited = shop.context.acting_as(ann)
    with pytest.raises(OperationRefused, match="there is no job"):
        await perform(limited, "job.cancel", {"ids": [number]})
    with pytest.raises(OperationForbidden):
        await perform(limited, "event.replay", {"destination": "app", "since": "2020-01-01T00:00:00Z"})
    shop.context = limited
    own = await shop.replay(source="acme")
    assert operations.may_see(ann, await shop.job(own))
    assert await perform(limited, "job.cancel", {"ids": [own]}) == {"cancelled": [own]}


@ON_SQLITE
async def test_a_second_person_approves_the_size_of_a_job(shop: Shop) -> None:
    made = await perform(shop.context, "token.create", {"name": "bob", "role": "operator", "expires": None})
    shop.context = replace(shop.context, second_person_above=COUNT - 1)
    with pytest.raises(ApprovalNeeded, match=f"concerns {COUNT} events"):
        await shop.replay()
    assert await shop.setup.store.read(jobs.newest, only_running=False) == []
    done = await shop.do("operation.approve", id=1, token=made["token"])
    job = await shop.job(done["result"]["job"])
    assert (job.planned, job.created_by, job.reason) == (COUNT, "api", "approved by bob")


@ON_SQLITE
async def test_a_job_that_is_cancelled_while_a_batch_is_sought_is_left_alone(shop: Shop) -> None:
    number = await shop.replay()
    job = await shop.job(number)
    await shop.do("job.cancel", ids=[number])
    assert await work(shop.setup.runtime, job, 10) is None
    assert await shop.count("pending") == 0
