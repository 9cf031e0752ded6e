"""What was learned about a source, when its streams were read, and what is looked into out of turn.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "learned",
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", name="pk_learned"),
    )
    op.create_table(
        "list_delay",
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "day", "bucket", name="pk_list_delay"),
    )
    op.add_column("source", sa.Column("unread_us", sa.BigInteger(), nullable=True))
    op.add_column("source", sa.Column("read_us", sa.BigInteger(), nullable=True))
    op.add_column("source", sa.Column("look", sa.Text(), nullable=True))
    op.add_column("stream", sa.Column("head_us", sa.BigInteger(), nullable=True))
    op.add_column("stream", sa.Column("deep_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("stream", "deep_us")
    op.drop_column("stream", "head_us")
    op.drop_column("source", "look")
    op.drop_column("source", "read_us")
    op.drop_column("source", "unread_us")
    op.drop_table("list_delay")
    op.drop_table("learned")
