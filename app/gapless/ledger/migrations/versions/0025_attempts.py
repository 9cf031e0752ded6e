"""Attempts keep the answer, and are bounded for each delivery.

Revision ID: 0025
Revises: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0022"
branch_labels = None
depends_on = None


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


def downgrade() -> None:
    op.drop_index("ix_delivery_waiting", "delivery")
    op.drop_index("ix_delivery_trimmed", "delivery")
    op.drop_column("delivery", "attempts_kept")
    op.drop_column("attempt", "answer")
    op.drop_column("attempt", "status")
