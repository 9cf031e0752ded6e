"""Attempts of passes that fail, and the intervals of events that were lost before they had one.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

LOST = """
INSERT INTO unrecoverable (stream_id, start_us, end_us, reason, recorded_us, acknowledged_us)
SELECT stream_id, occurred_us / 1000000 * 1000000, occurred_us / 1000000 * 1000000 + 1000000, 'event_lost',
       min(found_us), CASE WHEN count(acknowledged_us) = count(*) THEN max(acknowledged_us) END
FROM missing WHERE state = 'lost' GROUP BY stream_id, occurred_us / 1000000
ON CONFLICT (stream_id, start_us, end_us) DO NOTHING
"""


def upgrade() -> None:
    op.add_column("pass", sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("pass", sa.Column("next_attempt_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("pass", sa.Column("last_error", sa.Text(), nullable=True))
    failed = sa.text("state = 'failed'")
    op.create_index("ix_pass_failed", "pass", ["source_id"], sqlite_where=failed, postgresql_where=failed)
    op.execute(LOST)


def downgrade() -> None:
    op.drop_index("ix_pass_failed", "pass")
    op.drop_column("pass", "last_error")
    op.drop_column("pass", "next_attempt_us")
    op.drop_column("pass", "attempts")
