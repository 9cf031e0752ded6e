"""Columns for other kinds of provider: states of objects, names for detail, the history of our endpoint.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("event", sa.Column("object_version", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_event_object",
        "event",
        ["source_id", "object_key"],
        unique=False,
        sqlite_where=sa.text("object_version IS NOT NULL"),
        postgresql_where=sa.text("object_version IS NOT NULL"),
    )
    op.add_column("missing", sa.Column("ref", sa.Text(), nullable=True))
    op.add_column("missing", sa.Column("asked_us", sa.BigInteger(), nullable=True))
    op.add_column("source", sa.Column("subscription_good_us", sa.BigInteger(), nullable=True))
    op.add_column("source", sa.Column("last_webhook_us", sa.BigInteger(), nullable=True))
    op.add_column("source", sa.Column("lapsed_us", sa.BigInteger(), nullable=True))
    op.add_column("stream", sa.Column("last_listed", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("stream", sa.Column("cursor", sa.Text(), nullable=True))
    op.create_table(
        "subscription",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("healthy", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("types", sa.Text(), nullable=True),
        sa.Column("api_version", sa.Text(), nullable=True),
        sa.Column("own_covered", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("streams_covered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscription"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_subscription_source", "subscription", ["source_id", "since_us"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_subscription_source", table_name="subscription")
    op.drop_table("subscription")
    op.drop_column("stream", "cursor")
    op.drop_column("stream", "last_listed")
    op.drop_column("source", "lapsed_us")
    op.drop_column("source", "last_webhook_us")
    op.drop_column("source", "subscription_good_us")
    op.drop_column("missing", "asked_us")
    op.drop_column("missing", "ref")
    op.drop_index(
        "ix_event_object",
        table_name="event",
        sqlite_where=sa.text("object_version IS NOT NULL"),
        postgresql_where=sa.text("object_version IS NOT NULL"),
    )
    op.drop_column("event", "object_version")
