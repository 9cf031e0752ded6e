"""The seed of the ids that consumers see, and the intervals that a restored backup lacks.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("source", sa.Column("identity_seed", sa.Text(), nullable=True))
    op.execute("UPDATE source SET identity_seed = CAST(id AS TEXT)")  # the ids that consumers know stay the same
    op.create_table(
        "restored",
        sa.Column("stream_id", sa.BigInteger(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", "start_us", name=op.f("pk_restored")),
    )


def downgrade() -> None:
    op.drop_table("restored")
    op.drop_column("source", "identity_seed")
