"""Until when a source waits for requests that its grant has not refilled yet.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("source", sa.Column("unpaid_until_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("source", "unpaid_until_us")
