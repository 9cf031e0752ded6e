"""An index of running passes, and a payload for each event of a webhook that carries several.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    op.add_column("payload", sa.Column("envelope_id", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_pass_running", "pass", ["source_id"], unique=False, sqlite_where=RUNNING, postgresql_where=RUNNING
    )


def downgrade() -> None:
    op.drop_index("ix_pass_running", table_name="pass", sqlite_where=RUNNING, postgresql_where=RUNNING)
    op.drop_column("payload", "envelope_id")
