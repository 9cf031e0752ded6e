"""Rows of a list that cannot be read are kept.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("missing", sa.Column("until_us", sa.BigInteger(), nullable=True))
    op.add_column("missing", sa.Column("seen_us", sa.BigInteger(), nullable=True))
    op.add_column("missing", sa.Column("row", sa.LargeBinary(), nullable=True))
    of_them = sa.text("reason = 'unreadable'")
    op.create_index("ix_missing_unreadable", "missing", ["stream_id"], sqlite_where=of_them, postgresql_where=of_them)


def downgrade() -> None:
    op.drop_index("ix_missing_unreadable", "missing")
    op.drop_column("missing", "row")
    op.drop_column("missing", "seen_us")
    op.drop_column("missing", "until_us")
