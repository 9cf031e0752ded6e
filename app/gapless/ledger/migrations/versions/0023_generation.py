"""How often a person has asked to send a delivery again.

Revision ID: 0023
Revises: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("delivery", column)


def downgrade() -> None:
    op.drop_column("delivery", "generation")
