"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("destination_id", sa.BigInteger(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempt_delivery", "attempt", ["event_seq", "destination_id"], unique=False)
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "budget",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_budget"),
    )
    op.create_table(
        "delivery",
        sa.Column("destination_id", sa.BigInteger(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("done_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("destination_id", "event_seq", name="pk_delivery"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_delivery_due",
        "delivery",
        ["destination_id", "next_us", "event_seq"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_delivery_owing",
        "delivery",
        ["event_seq"],
        unique=False,
        sqlite_where=sa.text("state <> 'delivered'"),
        postgresql_where=sa.text("state <> 'delivered'"),
    )
    op.create_table(
        "destination",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_destination"),
        sa.UniqueConstraint("name", name="uq_destination_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "downtime",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_downtime"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "event",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("occurred_us", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("expected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("missed_cause", sa.Text(), nullable=True),
        sa.Column("webhook_us", sa.BigInteger(), nullable=True),
        sa.Column("webhook_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("absent_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("payload_id", sa.BigInteger(), nullable=True),
        sa.Column("item", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_event"),
        sa.UniqueConstraint("source_id", "key", name="uq_event_source_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_stream_occurred", "event", ["stream_id", "occurred_us"], unique=False)
    op.create_table(
        "missing",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("occurred_us", sa.BigInteger(), nullable=False),
        sa.Column("found_us", sa.BigInteger(), nullable=False),
        sa.Column("expected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_us", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_missing"),
        sa.UniqueConstraint("source_id", "key", name="uq_missing_source_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_missing_open",
        "missing",
        ["source_id", "next_attempt_us"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "pass",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("finished_us", sa.BigInteger(), nullable=True),
        sa.Column("listed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("found", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pass"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_pass_stream", "pass", ["stream_id", "id"], unique=False)
    op.create_table(
        "payload",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1, increment=1000),
            nullable=False,
        ),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=True),
        sa.Column("stored_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payload"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("released_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_quarantine"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_quarantine_source", "quarantine", ["source_id", "id"], unique=False)
    op.create_table(
        "slice",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("pass_id", sa.BigInteger(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("witnesses", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("matched", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_slice"),
        sa.UniqueConstraint("pass_id", "start_us", name="uq_slice_pass_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "slot",
        sa.Column("slot", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("receives", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("slot", name="pk_slot"),
    )
    op.create_table(
        "source",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("state_us", sa.BigInteger(), nullable=True),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("types", sa.Text(), nullable=True),
        sa.Column("types_origin", sa.Text(), server_default=sa.text("'assumed'"), nullable=False),
        sa.Column("subscription_healthy", sa.Boolean(), nullable=True),
        sa.Column("subscription_reason", sa.Text(), nullable=True),
        sa.Column("subscription_us", sa.BigInteger(), nullable=True),
        sa.Column("interval_us", sa.BigInteger(), nullable=True),
        sa.Column("next_pass_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lookback_us", sa.BigInteger(), nullable=True),
        sa.Column("last_sweep_us", sa.BigInteger(), nullable=True),
        sa.Column("lease_holder", sa.Text(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_source"),
        sa.UniqueConstraint("name", name="uq_source_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "stream",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("complete_from_us", sa.BigInteger(), nullable=False),
        sa.Column("watermark_us", sa.BigInteger(), nullable=False),
        sa.Column("checked_us", sa.BigInteger(), nullable=True),
        sa.Column("last_complete_pass_us", sa.BigInteger(), nullable=True),
        sa.Column("last_outcome", sa.Text(), nullable=True),
        sa.Column("parked_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_stream"),
        sa.UniqueConstraint("source_id", "name", name="uq_stream_source_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tally",
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("by_webhook", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("by_list", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("by_redelivery", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("by_import", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("expected", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missed_receiver_down", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missed_refused", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missed_subscription", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missed_unexplained", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("late", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unlisted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("behind_watermark", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "hour", "slot", name="pk_tally"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unrecoverable",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_unrecoverable"),
        sa.UniqueConstraint("stream_id", "start_us", "end_us", name="uq_unrecoverable_stream_id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("unrecoverable")
    op.drop_table("tally")
    op.drop_table("stream")
    op.drop_table("source")
    op.drop_table("slot")
    op.drop_table("slice")
    op.drop_index("ix_quarantine_source", table_name="quarantine")
    op.drop_table("quarantine")
    op.drop_table("payload")
    op.drop_index("ix_pass_stream", table_name="pass")
    op.drop_table("pass")
    op.drop_index(
        "ix_missing_open",
        table_name="missing",
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.drop_table("missing")
    op.drop_index("ix_event_stream_occurred", table_name="event")
    op.drop_table("event")
    op.drop_table("downtime")
    op.drop_table("destination")
    op.drop_index(
        "ix_delivery_owing",
        table_name="delivery",
        sqlite_where=sa.text("state <> 'delivered'"),
        postgresql_where=sa.text("state <> 'delivered'"),
    )
    op.drop_index(
        "ix_delivery_due",
        table_name="delivery",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.drop_table("delivery")
    op.drop_table("budget")
    op.drop_table("audit_log")
    op.drop_index("ix_attempt_delivery", table_name="attempt")
    op.drop_table("attempt")
