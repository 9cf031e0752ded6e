"""The pause that a provider wants, and the text of the last error of a stream.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("source", sa.Column("waiting_until_us", sa.BigInteger(), nullable=True))
    op.add_column("stream", sa.Column("last_error", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("stream", "last_error")
    op.drop_column("source", "waiting_until_us")
