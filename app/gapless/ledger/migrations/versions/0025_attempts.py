"""Attempts keep the answer and are bounded for each delivery; dead letters have an index of their own; jobs.

Revision ID: 0025
Revises: 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("attempt", sa.Column("status", sa.BigInteger(), nullable=True))
    op.add_column("attempt", sa.Column("answer", sa.Text(), nullable=True))
    op.add_column("delivery", sa.Column("attempts_kept", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    many = sa.text("attempts_kept > 20")
    op.create_index(
        "ix_delivery_trimmed", "delivery", ["destination_id", "event_seq"], sqlite_where=many, postgresql_where=many
    )
    waiting = sa.text("state <> 'delivered' AND state <> 'pending'")
    op.create_index(
        "ix_delivery_waiting",
        "delivery",
        ["state", "event_seq", "destination_id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_table(
        "job",
        sa.Column("id", WHOLE, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("destination", sa.Text(), nullable=True),
        sa.Column("cursor_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor_destination", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("left_out", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pace_us", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sqlite_autoincrement=True,
    )
    running = sa.text("state = 'running'")
    op.create_index("ix_job_running", "job", ["id"], sqlite_where=running, postgresql_where=running)


def downgrade() -> None:
    op.drop_table("job")
    op.drop_index("ix_delivery_waiting", "delivery")
    op.drop_index("ix_delivery_trimmed", "delivery")
    op.drop_column("delivery", "attempts_kept")
    op.drop_column("attempt", "answer")
    op.drop_column("attempt", "status")
