"""Indexes for searches of people, sessions of browsers, and actions of the API that are not performed twice.

Revision ID: 0030
Revises: 0028
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0028"
branch_labels = None
depends_on = None

OF_LOG = "object_version IS NULL AND object_key IS NOT NULL"
MISSED = "missed_cause IS NOT NULL"


def upgrade() -> None:
    for name, columns, where in (
        ("ix_event_object_of_log", ["source_id", "object_key"], OF_LOG),
        ("ix_event_missed_occurred", ["occurred_us", "seq"], MISSED),
    ):
        op.create_index(name, "event", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    op.create_table(
        "console_session",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_console_session"),
    )
    op.create_index("ix_console_session_until", "console_session", ["until_us"])
    op.create_table(
        "performed",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_performed"),
    )
    op.create_index("ix_performed_at", "performed", ["at_us"])


def downgrade() -> None:
    op.drop_table("performed")
    op.drop_table("console_session")
    op.drop_index("ix_event_missed_occurred", "event")
    op.drop_index("ix_event_object_of_log", "event")
