"""Destinations that are paused, and since when a delivery has been tried.

Revision ID: 0024
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

OF_DESTINATION = (
    ("paused_us", sa.BigInteger()),
    ("paused_by", sa.Text()),
    ("paused_reason", sa.Text()),
    ("resumed_us", sa.BigInteger()),
)


def upgrade() -> None:
    for name, kind in OF_DESTINATION:
        op.add_column("destination", sa.Column(name, kind, nullable=True))
    op.add_column("delivery", sa.Column("first_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("delivery", "first_us")
    for name, _ in reversed(OF_DESTINATION):
        op.drop_column("destination", name)
