"""What was asked of a provider in the last period, for what, and what it grants. Rows of before count as one purpose.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
COLUMNS = ("granted", "period_us", "at_us", "halved_until_us")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("budget", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("budget", sa.Column("owed_millionths", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "budget_use",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "start_us", "purpose", name="pk_budget_use"),
    )
    op.create_table(
        "earning",
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "start_us", name="pk_earning"),
    )
    op.execute(
        "INSERT INTO budget_use (scope, start_us, purpose, requests) "
        "SELECT scope, period_start_us, 'heartbeat', used FROM budget WHERE used > 0"
    )


def downgrade() -> None:
    op.drop_table("earning")
    op.drop_table("budget_use")
    op.drop_column("budget", "owed_millionths")
    for name in COLUMNS:
        op.drop_column("budget", name)
