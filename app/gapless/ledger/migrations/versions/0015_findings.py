"""Listed events whose webhooks may still come, and the first row of a slice that was too young to be recorded.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "finding",
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("occurred_us", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "key", name="pk_finding"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_finding_stream", "finding", ["stream_id", "occurred_us"])
    op.add_column("missing", sa.Column("counted", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("slice", sa.Column("left_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("slice", "left_us")
    op.drop_column("missing", "counted")
    op.drop_table("finding")
