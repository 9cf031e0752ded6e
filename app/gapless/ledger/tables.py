"""The tables. Input is checked before it comes here, and hot paths use the columns, never row objects.

Every time is a whole number of microseconds since 1970 UTC (`domain.to_us`), so that both databases
compare and index it alike. Migrations are tested to equal this file.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy import (
    Identity as IdentityBy,
)
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
ID_BLOCK = 1000
"""Ids that a process reserves in one block."""

Whole = BigInteger().with_variant(Integer, "sqlite")


class TableRow(SQLModel):
    """Base of all tables, with its own metadata, so that it does not mix with an application's SQLModel tables."""

    metadata = METADATA


def _index_where(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=sql(where), postgresql_where=sql(where))


def _id() -> Any:
    return Field(default=None, sa_column=Column("id", Whole, primary_key=True, autoincrement=True))


def _long(*, null: bool = False, default: int | None = None) -> Any:
    server_default = None if default is None else sql(str(default))
    return Field(
        default=default, sa_type=BigInteger, nullable=null, sa_column_kwargs={"server_default": server_default}
    )


def _text(*, null: bool = False, default: str | None = None) -> Any:
    server_default = None if default is None else sql(f"'{default}'")
    return Field(default=default, sa_type=Text, nullable=null, sa_column_kwargs={"server_default": server_default})


def _flag(*, default: bool) -> Any:
    return Field(
        default=default, nullable=False, sa_column_kwargs={"server_default": sql("true" if default else "false")}
    )


class SourceRow(TableRow, table=True):
    """One configured account. The id is immutable; the name can be changed by `gapless source rename`."""

    __tablename__ = "source"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = _id()
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    provider: str = _text()
    identity_seed: str | None = _text(null=True)  # see `sources.identity_seed`
    digest_key: str | None = _text(null=True)  # of the digests in the place of secrets that webhooks carry
    mode: str = _text()
    start_us: int = _long()
    state: str = _text(default="active")  # active | parked | retired
    reason: str | None = _text(null=True)  # why it is parked
    state_us: int | None = _long(null=True)  # since when it is in this state
    account: str | None = _text(null=True)  # fingerprint, once read
    account_us: int | None = _long(null=True)  # when that account was first read
    other_account: str | None = _text(null=True)  # that of the key, while it is another one
    livemode: bool | None = Field(default=None, nullable=True)  # its own mode; None: the provider has no modes
    types: str | None = _text(null=True)  # JSON list of patterns, as last known
    types_origin: str = _text(default="assumed")
    subscription_healthy: bool | None = Field(default=None, nullable=True)
    subscription_reason: str | None = _text(null=True)
    subscription_us: int | None = _long(null=True)
    subscription_good_us: int | None = _long(null=True)  # when it was last seen healthy
    endpoint_version: str | None = _text(null=True)  # API version of our endpoint, when it was last seen healthy
    last_webhook_us: int | None = _long(null=True)  # within seconds; see `ledger.silence`
    unread_us: int | None = _long(null=True)  # when the first webhook came since the source was last read
    read_us: int | None = _long(null=True)  # when its last run began
    look: str | None = _text(null=True)  # JSON: what is looked into out of turn, see `ledger.looks`
    lapsed_us: int | None = _long(null=True)  # since when it may be inactive, where the list needs it active
    interval_us: int | None = _long(null=True)
    next_pass_us: int = _long(default=0)
    wait_us: int | None = _long(null=True)  # the wait that ends at next_pass_us
    skew_us: int | None = _long(null=True)  # the ledger's clock less the provider's, as last seen
    waiting_until_us: int | None = _long(null=True)  # the provider wants no request before
    unpaid_until_us: int | None = _long(null=True)  # a reading waits until then for requests that the grant refills
    lookback_us: int | None = _long(null=True)  # widened by what a sweep found; None: as configured
    last_sweep_us: int | None = _long(null=True)
    quarantine_expired: int = _long(default=0)  # refused webhooks that may be genuine, purged before anybody looked
    quarantine_expired_us: int | None = _long(null=True)  # when the first of them was purged since a person looked
    lease_holder: str | None = _text(null=True)
    lease_epoch: int = _long(default=0)
    lease_until_us: int = _long(default=0)


class SubscriptionRow(TableRow, table=True):
    """Our endpoint as the provider had it from `since_us` on: what is expected depends on it."""

    __tablename__ = "subscription"
    __table_args__ = (Index("ix_subscription_source", "source_id", "since_us"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    source_id: int = _long()
    since_us: int = _long()
    healthy: bool = _flag(default=False)
    reason: str = _text(default="")
    types: str | None = _text(null=True)  # JSON list of patterns; None: the provider does not say
    api_version: str | None = _text(null=True)
    own_covered: bool = _flag(default=True)
    streams_covered: bool = _flag(default=False)


class StreamRow(TableRow, table=True):
    """A part of a source that is listed by itself."""

    __tablename__ = "stream"
    __table_args__ = (UniqueConstraint("source_id", "name"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    source_id: int = _long()
    name: str = _text()
    complete_from_us: int = _long()
    watermark_us: int = _long()
    read_us: int | None = _long(null=True)  # how far passes have read, while absent events hold the watermark back
    checked_us: int | None = _long(null=True)  # when the list was last read over the whole lookback, to the watermark
    last_complete_pass_us: int | None = _long(null=True)
    head_us: int | None = _long(null=True)  # when its last scheduled pass began
    deep_us: int | None = _long(null=True)  # when the last one began that reached back over the whole lookback
    last_outcome: str | None = _text(null=True)
    last_error: str | None = _text(null=True)  # why the last pass could not be completed; None: it was
    parked_reason: str | None = _text(null=True)
    last_listed: int = _long(default=0)  # how many events its last complete pass listed
    cursor: str | None = _text(null=True)  # where reading consumes: the next request, which acknowledges what was read


class DestinationRow(TableRow, table=True):
    """A destination of events. It owes only events that occurred at or after `since_us`."""

    __tablename__ = "destination"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = _id()
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    since_us: int = _long()
    state: str = _text(default="active")  # active | retired
    paused_us: int | None = _long(null=True)  # since when nothing is sent; None: it is not paused
    paused_by: str | None = _text(null=True)
    paused_reason: str | None = _text(null=True)
    resumed_us: int | None = _long(null=True)


class EventRow(TableRow, table=True):
    """The permanent, narrow record of one event. Identity: (source, key)."""

    __tablename__ = "event"
    __table_args__ = (
        UniqueConstraint("source_id", "key"),
        Index("ix_event_stream_occurred", "stream_id", "occurred_us"),
        _index_where("ix_event_object", "source_id", "object_key", where="object_version IS NOT NULL"),
        _index_where(
            "ix_event_object_of_log",
            "source_id",
            "object_key",
            where="object_version IS NULL AND object_key IS NOT NULL",
        ),
        _index_where("ix_event_missed_occurred", "occurred_us", "seq", where="missed_cause IS NOT NULL"),
        _index_where("ix_event_missed", "seq", where="missed_cause IS NOT NULL"),
        _index_where("ix_event_unlisted", "seq", where="absent_count >= 2"),
        Index("ix_event_payload", "payload_id"),
        {"sqlite_autoincrement": True},
    )
    seq: int | None = Field(default=None, sa_column=Column("seq", Whole, primary_key=True, autoincrement=True))
    source_id: int = _long()
    stream_id: int = _long()
    key: str = _text()
    type: str = _text()
    object_key: str | None = _text(null=True)
    object_version: int | None = _long(null=True)  # where the list shows states: grows with each change
    occurred_us: int = _long()
    first_seen_us: int = _long()
    via: str = _text()
    expected: bool = _flag(default=False)
    missed_cause: str | None = _text(null=True)  # set if it was missed
    webhook_us: int | None = _long(null=True)  # when its first webhook came
    webhook_count: int = _long(default=0)
    absent_count: int = _long(default=0)  # complete listings of its window that did not show it; 2: unlisted
    payload_id: int | None = _long(null=True)
    item: int = _long(default=0)  # its position in a webhook that carries several
    repeated: bool = _flag(default=False)  # an event of another key came with the same signed message before
    livemode: bool | None = Field(default=None, nullable=True)  # False: of the vendor's test mode; None: no modes
    erased_us: int | None = _long(null=True)  # when a person had its content erased


class SignedMessageRow(TableRow, table=True):
    """How many events came with one signed message, where the signature does not cover the event's identity."""

    __tablename__ = "signed_message"
    __table_args__ = (PrimaryKeyConstraint("source_id", "digest"), {"sqlite_with_rowid": False})
    source_id: int = _long()
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # the first 16 bytes of a SHA-256
    identities: int = _long()


class PayloadRow(TableRow, table=True):
    """The raw body and signature headers of a webhook, or a listed item. Pruned after a time.

    If a webhook carries several events, each has its own row, and one more row holds the signed body.

    A process reserves ids in blocks (`dialect.reserve_block`), so that it knows them before it inserts.
    """

    __tablename__ = "payload"
    __table_args__ = (
        _index_where("ix_payload_sealed_by", "sealed_by", where="sealed_by IS NOT NULL"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(
        default=None, sa_column=Column("id", Whole, IdentityBy(start=1, increment=ID_BLOCK), primary_key=True)
    )
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    headers: str | None = _text(null=True)  # JSON object of the signature headers
    stored_us: int = _long()
    envelope_id: int | None = _long(null=True)  # the payload that holds the body which this is a part of
    sealed_by: str | None = _text(null=True)  # the id of the key that sealed headers and body, both in `body`
    size: int | None = _long(null=True)  # bytes of the body, where it is sealed


class MissingRow(TableRow, table=True):
    """An event that a pass found and could not record at once."""

    __tablename__ = "missing"
    __table_args__ = (
        UniqueConstraint("source_id", "key"),
        _index_where("ix_missing_open", "source_id", "next_attempt_us", where="state = 'open'"),
        _index_where("ix_missing_unreadable", "stream_id", where="reason = 'unreadable'"),
        _index_where("ix_missing_sealed_by", "sealed_by", where="sealed_by IS NOT NULL"),
        _index_where("ix_missing_unrecovered", "source_id", where="state IN ('open', 'lost')"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = _id()
    source_id: int = _long()
    stream_id: int = _long()
    key: str = _text()
    type: str = _text()
    ref: str | None = _text(null=True)  # what detail and redelivery ask for, if not the key
    occurred_us: int = _long()
    found_us: int = _long()
    expected: bool = _flag(default=False)
    cause: str | None = _text(null=True)
    reason: str = _text()  # unstorable | detail | redelivery | unreadable
    state: str = _text(default="open")  # open | recovered | lost; of an unreadable row also resolved | dismissed
    attempts: int = _long(default=0)
    next_attempt_us: int = _long()
    wait_us: int | None = _long(null=True)  # the wait that ends at next_attempt_us; None: since it was found
    asked_us: int | None = _long(null=True)  # when the provider was asked to send it again
    last_error: str | None = _text(null=True)
    acknowledged_us: int | None = _long(null=True)  # of no use since 0008: the unrecoverable interval has it
    until_us: int | None = _long(null=True)  # of an unreadable row: it occurred from `occurred_us` up to this time
    seen_us: int | None = _long(null=True)  # of an unreadable row: when the list last showed it
    row: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))  # the unreadable row, bounded
    sealed_by: str | None = _text(null=True)  # the id of the key that sealed `row`
    counted: bool = _flag(
        default=True
    )  # it counts as missed, if it is expected; False: it is a finding, or came in time


class FindingRow(TableRow, table=True):
    """An expected event that a listing showed first, and whose webhook may still come without its being missed.

    The event, or its missing row, has the same key. The row goes when it is judged (`ledger.findings`).
    """

    __tablename__ = "finding"
    __table_args__ = (
        PrimaryKeyConstraint("source_id", "key"),
        Index("ix_finding_stream", "stream_id", "occurred_us"),
        {"sqlite_with_rowid": False},
    )
    source_id: int = _long()
    key: str = _text()
    stream_id: int = _long()
    occurred_us: int = _long()
    cause: str = _text()  # the cause that is counted if it is missed


class PassRow(TableRow, table=True):
    """One reconciliation of one stream over `[start, end)`."""

    __tablename__ = "pass"
    __table_args__ = (
        Index("ix_pass_stream", "stream_id", "id"),
        _index_where("ix_pass_running", "source_id", where="state = 'running'"),
        _index_where("ix_pass_failed", "source_id", where="state = 'failed'"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = _id()
    source_id: int = _long()
    stream_id: int = _long()
    kind: str = _text()  # scheduled | sweep | horizon | demand | recheck
    start_us: int = _long()
    end_us: int = _long()
    state: str = _text(default="running")  # running | finished | failed: on demand, given up, until a person cancels it
    # clean | found | contradicted | suspect_listing | error class | superseded | cancelled
    outcome: str | None = _text(null=True)
    started_us: int = _long()
    finished_us: int | None = _long(null=True)
    listed: int = _long(default=0)
    found: int = _long(default=0)
    missed: int = _long(default=0)
    requests: int = _long(default=0)
    attempts: int = _long(default=0)  # of a pass on demand: how often it failed
    next_attempt_us: int = _long(default=0)  # of a pass on demand: when it goes on
    last_error: str | None = _text(null=True)  # why it failed the last time


class SliceRow(TableRow, table=True):
    """A part of a pass that is listed by itself, and the progress of its listing."""

    __tablename__ = "slice"
    __table_args__ = (UniqueConstraint("pass_id", "start_us"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    pass_id: int = _long()
    start_us: int = _long()
    end_us: int = _long()
    state: str = _text(default="open")  # open | done
    cursor: str | None = _text(null=True)  # the next request, without credentials; None: at the start
    witnesses: int = _long(default=0)  # settled webhook events that its listing should have shown
    matched: int = _long(default=0)  # of those, how many it did show
    left_us: int | None = _long(
        null=True
    )  # the first row that was too young to be recorded: nothing is claimed from it on


class ShownRow(TableRow, table=True):
    """The witnesses that pages of a slice showed before its cursor. The rows go when the slice is done."""

    __tablename__ = "shown"
    __table_args__ = (Index("ix_shown_slice", "slice_id"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    slice_id: int = _long()
    seqs: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # of events, 8 bytes each


class AbsenceRow(TableRow, table=True):
    """An event that came by webhook, and that a listing of its time lacked."""

    __tablename__ = "absence"
    __table_args__ = (
        PrimaryKeyConstraint("event_seq"),
        _index_where("ix_absence_open", "stream_id", "occurred_us", where="state = 'open'"),
    )
    event_seq: int = _long()
    stream_id: int = _long()
    occurred_us: int = _long()
    found_us: int = _long()
    pass_id: int = _long()  # the last pass whose listing lacked it
    state: str = _text(default="open")  # open | listed | accepted
    tries: int = _long(default=0)  # how often it was looked for in other cuts of the list
    next_us: int = _long()  # when it is looked for again


class UnrecoverableRow(TableRow, table=True):
    """An interval for which the provider can no longer prove anything."""

    __tablename__ = "unrecoverable"
    __table_args__ = (UniqueConstraint("stream_id", "start_us", "end_us"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    stream_id: int = _long()
    start_us: int = _long()
    end_us: int = _long()
    reason: str = _text()
    recorded_us: int = _long()
    acknowledged_us: int | None = _long(null=True)  # when a person acknowledged it
    acknowledged_by: str | None = _text(null=True)
    acknowledged_reason: str | None = _text(null=True)  # what was looked into, in that person's words


class RestoredRow(TableRow, table=True):
    """A time that a restored backup lacks: what a list shows of it may have come, and been delivered, before."""

    __tablename__ = "restored"
    __table_args__ = (PrimaryKeyConstraint("stream_id", "start_us"),)
    stream_id: int = _long()
    start_us: int = _long()
    end_us: int = _long()


class LearnedRow(TableRow, table=True):
    """What was learned about a source, and the plan by which it is read."""

    __tablename__ = "learned"
    __table_args__ = (PrimaryKeyConstraint("source_id"),)
    source_id: int = _long()
    at_us: int = _long()  # when it was last reckoned
    facts: str = _text()  # JSON: see `ledger.learned.Learned`


class ListDelayRow(TableRow, table=True):
    """How many events a listing first showed at an age, by day: they had come by webhook."""

    __tablename__ = "list_delay"
    __table_args__ = (PrimaryKeyConstraint("source_id", "day", "bucket"),)
    source_id: int = _long()
    day: int = _long()  # whole days since 1970 UTC
    bucket: int = _long()  # of ages, see `reconcile.lateness.AgeCounts`
    count: int = _long()


class BudgetRow(TableRow, table=True):
    """The purse of one scope, and the read requests used since its fixed period began."""

    __tablename__ = "budget"
    scope: str = Field(sa_column=Column(Text, primary_key=True))
    period_start_us: int = _long()
    used: int = _long(default=0)
    granted: int | None = _long(null=True)  # requests that the vendor grants in period_us; None: it publishes nothing
    period_us: int | None = _long(null=True)
    owed_millionths: int = _long(default=0)  # of requests: spent, and not refilled by at_us
    at_us: int | None = _long(null=True)
    halved_until_us: int | None = _long(null=True)  # an hour after the vendor asked us to slow down


class BudgetUseRow(TableRow, table=True):
    """Requests of one purpose that were made, or reserved, in a thirtieth of the period, per scope."""

    __tablename__ = "budget_use"
    __table_args__ = (PrimaryKeyConstraint("scope", "start_us", "purpose"),)
    scope: str = _text()
    start_us: int = _long()
    purpose: str = _text()
    requests: int = _long()


class EarningRow(TableRow, table=True):
    """Events that earn requests and occurred in [start_us, end_us), as a listing at the first start showed them."""

    __tablename__ = "earning"
    __table_args__ = (PrimaryKeyConstraint("source_id", "start_us"),)
    source_id: int = _long()
    start_us: int = _long()
    end_us: int = _long()
    events: int = _long()


_IN_ORDER = ("destination_id", "order_key", "order_us", "event_seq")
_IS_UNPROVEN = "unproven_id IS NOT NULL"
_IS_UNSETTLED = "state <> 'delivered' AND state <> 'pending' AND state <> 'waiting'"
_IS_TRIED = "state = 'pending' AND attempts > 0 AND answers = 0"
_IS_ANSWERED = "state = 'pending' AND answers > 0"


class DeliveryRow(TableRow, table=True):
    """One event owed to one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        PrimaryKeyConstraint("destination_id", "event_seq"),
        _index_where("ix_delivery_due", "destination_id", "next_us", "event_seq", where="state = 'pending'"),
        _index_where("ix_delivery_oldest", "destination_id", "created_us", where="state = 'pending'"),
        _index_where("ix_delivery_queued", "destination_id", "created_us", where="state = 'waiting'"),
        _index_where("ix_delivery_since", "destination_id", "state", "created_us", where=_IS_UNSETTLED),
        _index_where("ix_delivery_tried", "destination_id", "created_us", where=_IS_TRIED),
        _index_where("ix_delivery_unsettled", "state", "event_seq", "destination_id", where=_IS_UNSETTLED),
        _index_where("ix_delivery_trimmed", "destination_id", "event_seq", where="attempts_kept > 20"),
        _index_where("ix_delivery_order", *_IN_ORDER, where="order_key IS NOT NULL AND state <> 'delivered'"),
        _index_where("ix_delivery_newest", *_IN_ORDER[:3], where="order_key IS NOT NULL AND late IS NULL"),
        _index_where("ix_delivery_unproven", "destination_id", "unproven_id", *_IN_ORDER[2:], where=_IS_UNPROVEN),
        _index_where("ix_delivery_answered", "destination_id", "answered_us", "answers", where=_IS_ANSWERED),
        {"sqlite_with_rowid": False},
    )
    destination_id: int = _long()
    event_seq: int = _long()
    state: str = _text(default="pending")  # pending | waiting | delivered | dead | held | parked
    attempts: int = _long(default=0)
    next_us: int = _long()
    wait_us: int | None = _long(null=True)  # the wait that ends at next_us; None: since it was created
    lease_us: int = _long(default=0)  # claimed until
    reason: str | None = _text(null=True)
    created_us: int = _long()
    done_us: int | None = _long(null=True)
    generation: int = _long(default=0)  # how often a person has asked to send it again
    first_us: int | None = _long(null=True)  # its first attempt since it was made, or was sent again; None: not yet
    attempts_kept: int = _long(default=0)  # rows of `attempt` that it may have
    answered_us: int | None = _long(null=True)  # of one that needs a receipt: when it was first answered 2xx
    answers: int = _long(default=0)  # how often it was answered 2xx without a receipt
    applied_us: int | None = _long(null=True)  # when the receipt came
    order_key: int | None = _long(null=True)  # those of one key are sent one after the other; None: in any order
    order_us: int | None = _long(null=True)  # its place among those of its key, see `ledger.ordering`
    late: str | None = _text(null=True)  # why it comes out of the order of occurrence: recovered | replayed
    unproven_id: int | None = _long(null=True)  # the source whose list must be complete up to it first


class DeliveryCountRow(TableRow, table=True):
    """How many deliveries are owed, by state and reason. Triggers of the database keep it: see migration 0025.

    Rows of several slots are summed, so that processes do not wait for each other.
    """

    __tablename__ = "delivery_count"
    __table_args__ = (PrimaryKeyConstraint("destination_id", "state", "reason", "slot"),)
    destination_id: int = _long()
    state: str = _text()
    reason: str = _text()  # "": there is none
    slot: int = _long()
    count: int = _long()


class ReleasedRow(TableRow, table=True):
    """Up to when a destination was given the events of a source of which nothing earlier can be missing any more."""

    __tablename__ = "released"
    __table_args__ = (PrimaryKeyConstraint("destination_id", "source_id"), {"sqlite_with_rowid": False})
    destination_id: int = _long()
    source_id: int = _long()
    up_to_us: int = _long()


class AttemptRow(TableRow, table=True):
    """One attempt of one delivery."""

    __tablename__ = "attempt"
    __table_args__ = (Index("ix_attempt_delivery", "event_seq", "destination_id"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    destination_id: int = _long()
    event_seq: int = _long()
    at_us: int = _long()
    duration_us: int = _long()
    outcome: str = _text()
    detail: str | None = _text(null=True)
    status: int | None = _long(null=True)  # of the answer
    answer: str | None = _text(null=True)  # JSON: see `ledger.attempts`


class JobRow(TableRow, table=True):
    """What a person asked to be done to many events, and how far it is; see `ledger.jobs`."""

    __tablename__ = "job"
    __table_args__ = (_index_where("ix_job_running", "id", where="state = 'running'"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    kind: str = _text()  # the operation that asked for it
    plan: str = _text()  # JSON: what it concerns
    source: str | None = _text(null=True)
    destination: str | None = _text(null=True)
    cursor_seq: int = _long(default=0)  # what is done: events up to this one,
    cursor_destination: int = _long(default=0)  # and of this one up to this destination
    planned: int = _long()  # how many it concerned when it began
    done: int = _long(default=0)
    left_out: int = _long(default=0)
    pace_us: int | None = _long(null=True)  # for each event; None: as fast as the destinations take them
    state: str = _text(default="running")  # running | finished | cancelled | failed
    next_us: int = _long()  # when its next batch is due
    created_us: int = _long()
    created_by: str = _text()
    role: str = _text()
    reason: str | None = _text(null=True)
    ended_us: int | None = _long(null=True)
    last_error: str | None = _text(null=True)


class ReceiptRow(TableRow, table=True):
    """An event that a handler has processed itself. `destination_id` 0: any handler with a webhook of its own."""

    __tablename__ = "receipt"
    __table_args__ = (UniqueConstraint("source_id", "key", "destination_id"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    source_id: int = _long()
    key: str = _text()
    destination_id: int = _long()
    at_us: int = _long()


class TallyRow(TableRow, table=True):
    """Counts per source, hour of occurrence and writer slot. Gap rates and charts read this, never `event`."""

    __tablename__ = "tally"
    __table_args__ = (PrimaryKeyConstraint("source_id", "hour", "slot"), {"sqlite_with_rowid": False})
    source_id: int = _long()
    hour: int = _long()  # whole hours since 1970 UTC
    slot: int = _long()
    by_webhook: int = _long(default=0)
    by_list: int = _long(default=0)
    by_redelivery: int = _long(default=0)
    by_import: int = _long(default=0)
    expected: int = _long(default=0)
    missed_receiver_down: int = _long(default=0)
    missed_refused: int = _long(default=0)
    missed_subscription: int = _long(default=0)
    missed_unexplained: int = _long(default=0)
    late: int = _long(default=0)
    duplicates: int = _long(default=0)
    unlisted: int = _long(default=0)
    behind_watermark: int = _long(default=0)
    other_mode: int = _long(default=0)  # events of the mode that is not the source's own


class SlotRow(TableRow, table=True):
    """A leased writer slot: which process writes tallies under this number, and whether it receives."""

    __tablename__ = "slot"
    slot: int = Field(sa_column=Column(Whole, primary_key=True, autoincrement=False))
    holder: str | None = _text(null=True)
    receives: bool = _flag(default=False)
    heartbeat_us: int = _long(default=0)
    lease_until_us: int = _long(default=0)
    generation: int | None = _long(null=True)  # of the configuration with which the process was started
    withheld: str | None = _text(null=True)  # JSON list: what that configuration, being older, did not change
    clock_offset_us: int | None = _long(null=True)  # the clock of the process's machine less the database's


class ConfigurationRow(TableRow, table=True):
    """The names in a configuration. The row with the greatest generation is the one in force."""

    __tablename__ = "configuration"
    __table_args__ = ({"sqlite_autoincrement": True},)
    generation: int | None = Field(
        default=None, sa_column=Column("generation", Whole, primary_key=True, autoincrement=True)
    )
    digest: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    first_us: int = _long()  # when it was first seen, or activated


class LastCommitRow(TableRow, table=True):
    """The last transaction of one connection to PostgreSQL, so that a commit without an answer can be looked up.

    `writer` is another name for each connection. SQLite always tells what became of a commit.
    """

    __tablename__ = "last_commit"
    writer: str = Field(sa_column=Column(Text, primary_key=True))
    number: int = _long()
    at_us: int = _long()


class DowntimeRow(TableRow, table=True):
    """A time in which no process of ours received webhooks."""

    __tablename__ = "downtime"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = _id()
    start_us: int = _long()
    end_us: int = _long()


class QuarantineRow(TableRow, table=True):
    """A refused webhook, kept for a while with the reason; once it is purged, only what it claims and the reason."""

    __tablename__ = "quarantine"
    __table_args__ = (
        Index("ix_quarantine_source", "source_id", "id"),
        _index_where("ix_quarantine_sealed_by", "sealed_by", where="sealed_by IS NOT NULL"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = _id()
    source_id: int = _long()
    received_us: int = _long()
    reason: str = _text()
    detail: str = _text()
    headers: str = _text()
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    released_us: int | None = _long(null=True)
    sender: str = _text(default="")  # the address that it came from; "": unknown
    claims: str = _text(default="[]")  # JSON list: the keys of the events that it claims to carry
    purged_us: int | None = _long(null=True)  # when its headers and body were deleted
    sealed_by: str | None = _text(null=True)  # the id of the key that sealed headers and body, both in `body`


class EncryptionKeyRow(TableRow, table=True):
    """A key that payloads may be sealed with. The key itself is nowhere in the ledger."""

    __tablename__ = "encryption_key"
    id: str = Field(sa_column=Column(Text, primary_key=True))
    fingerprint: str = _text()  # tells keys of one id apart
    first_us: int = _long()  # when a process first had it


class AuditLogRow(TableRow, table=True):
    """One action: who did what, and when. Its `digest` depends on that of the row before; see `ledger.audit_log`."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_number", "number", unique=True), {"sqlite_autoincrement": True})
    id: int | None = _id()
    at_us: int = _long()
    actor: str = _text()
    action: str = _text()
    subject: str = _text()
    detail: str | None = _text(null=True)
    number: int | None = _long(null=True)  # its place in the chain; None: it is from before there was one
    role: str | None = _text(null=True)  # of the actor
    reason: str | None = _text(null=True)  # in the actor's words
    digest: str | None = _text(null=True)


class AuditHeadRow(TableRow, table=True):
    """The two ends of the audit log's chain: its last row, and the last of those that were pruned. One row, id 1."""

    __tablename__ = "audit_head"
    id: int = Field(sa_column=Column(Whole, primary_key=True, autoincrement=False))
    number: int = _long(default=0)
    digest: str = _text(default="")
    seal: str = _text(default="")  # proves that Gapless wrote number and digest
    pruned: int = _long(default=0)
    pruned_digest: str = _text(default="")
    pruned_seal: str = _text(default="")


class TokenRow(TableRow, table=True):
    """A named token of the private listener. The token itself is nowhere, only its digest."""

    __tablename__ = "token"
    __table_args__ = (UniqueConstraint("name"), UniqueConstraint("digest"), {"sqlite_autoincrement": True})
    id: int | None = _id()
    name: str = _text()
    role: str = _text()
    sources: str | None = _text(null=True)  # JSON list of names; None: all of them
    destinations: str | None = _text(null=True)  # JSON list of names; None: all of them
    digest: str = _text()  # SHA-256 of the token, which is 256 random bits
    created_us: int = _long()
    created_by: str = _text()
    expires_us: int | None = _long(null=True)  # None: never
    revoked_us: int | None = _long(null=True)
    revoked_by: str | None = _text(null=True)


class SessionRow(TableRow, table=True):
    """A browser that has signed in. Its cookie is nowhere, only the digest; see `ledger.sessions`."""

    __tablename__ = "console_session"
    __table_args__ = (Index("ix_console_session_until", "until_us"),)
    digest: str = Field(sa_column=Column(Text, primary_key=True))  # SHA-256 of the cookie
    token: str = _text()  # the name of the token, or of the setting that has it
    proof: str = _text()  # HMAC of the token under the cookie: the same token must still be in force
    created_us: int = _long()
    until_us: int = _long()


class PerformedRow(TableRow, table=True):
    """An action of the API that was asked for with a key of its own, so that it is not performed twice."""

    __tablename__ = "performed"
    __table_args__ = (Index("ix_performed_at", "at_us"),)
    digest: str = Field(sa_column=Column(Text, primary_key=True))  # of who asked and the key
    asked: str = _text()  # digest of the operation and what it was asked to do
    at_us: int = _long()
    result: str | None = _text(null=True)  # JSON; None: it is under way, or ended with the process


class HandshakeRow(TableRow, table=True):
    """An operator who waits for the secret that the vendor of a source chooses; see `ledger.handshakes`."""

    __tablename__ = "handshake"
    source_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    reader: str = _text()  # public key: the secret is sealed for this reader alone
    until_us: int = _long()
    sealed: str | None = _text(null=True)  # None: it has not come yet


class ApprovalRow(TableRow, table=True):
    """An operation that a second person must approve before it is performed."""

    __tablename__ = "approval"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = _id()
    asked_us: int = _long()
    asked_by: str = _text()
    principal: str = _text()  # JSON: who asked, with the role and the limits
    operation: str = _text()
    args: str = _text()  # JSON
    events: int = _long()  # how many it concerns
    approved_us: int | None = _long(null=True)
    approved_by: str | None = _text(null=True)


def _table(row: type[TableRow]) -> Table:
    table: Table = row.__table__  # type: ignore[attr-defined]
    return table


SOURCE, STREAM, DESTINATION = _table(SourceRow), _table(StreamRow), _table(DestinationRow)
EVENT, PAYLOAD, MISSING, FINDING = _table(EventRow), _table(PayloadRow), _table(MissingRow), _table(FindingRow)
PASS, SLICE, UNRECOVERABLE, BUDGET = _table(PassRow), _table(SliceRow), _table(UnrecoverableRow), _table(BudgetRow)
BUDGET_USE, EARNING = _table(BudgetUseRow), _table(EarningRow)
DELIVERY_COUNT = _table(DeliveryCountRow)
DELIVERY, ATTEMPT, TALLY, JOB = _table(DeliveryRow), _table(AttemptRow), _table(TallyRow), _table(JobRow)
SHOWN, ABSENCE, CONFIGURATION = _table(ShownRow), _table(AbsenceRow), _table(ConfigurationRow)
SUBSCRIPTION, RESTORED, RECEIPT = _table(SubscriptionRow), _table(RestoredRow), _table(ReceiptRow)
SIGNED_MESSAGE = _table(SignedMessageRow)
LEARNED, LIST_DELAY = _table(LearnedRow), _table(ListDelayRow)
SLOT, DOWNTIME, QUARANTINE, AUDIT_LOG = _table(SlotRow), _table(DowntimeRow), _table(QuarantineRow), _table(AuditLogRow)
ENCRYPTION_KEY = _table(EncryptionKeyRow)
RELEASED = _table(ReleasedRow)
AUDIT_HEAD, TOKEN, APPROVAL = _table(AuditHeadRow), _table(TokenRow), _table(ApprovalRow)
SESSION, PERFORMED, HANDSHAKE = _table(SessionRow), _table(PerformedRow), _table(HandshakeRow)
