"""Acknowledgement of unrecoverable intervals and lost events.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("unrecoverable", sa.Column("acknowledged_us", sa.BigInteger(), nullable=True))
    op.add_column("unrecoverable", sa.Column("acknowledged_by", sa.Text(), nullable=True))
    op.add_column("unrecoverable", sa.Column("acknowledged_reason", sa.Text(), nullable=True))
    op.add_column("missing", sa.Column("acknowledged_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("missing", "acknowledged_us")
    op.drop_column("unrecoverable", "acknowledged_reason")
    op.drop_column("unrecoverable", "acknowledged_by")
    op.drop_column("unrecoverable", "acknowledged_us")
