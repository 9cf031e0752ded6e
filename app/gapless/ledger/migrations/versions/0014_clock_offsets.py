"""How far each process's machine differs from the database's clock, so that `gapless status` can tell.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("slot", sa.Column("clock_offset_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("slot", "clock_offset_us")
