"""Events that a listing lacks although their webhooks came, and how far passes read while those hold the watermark.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stream", sa.Column("read_us", sa.BigInteger(), nullable=True))
    op.create_table(
        "shown",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("slice_id", sa.BigInteger(), nullable=False),
        sa.Column("seqs", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shown"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_shown_slice", "shown", ["slice_id"])
    op.create_table(
        "absence",
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("occurred_us", sa.BigInteger(), nullable=False),
        sa.Column("found_us", sa.BigInteger(), nullable=False),
        sa.Column("pass_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_seq", name="pk_absence"),
    )
    is_open = sa.text("state = 'open'")
    op.create_index(
        "ix_absence_open", "absence", ["stream_id", "occurred_us"], sqlite_where=is_open, postgresql_where=is_open
    )


def downgrade() -> None:
    op.drop_table("absence")
    op.drop_table("shown")
    op.drop_column("stream", "read_us")
