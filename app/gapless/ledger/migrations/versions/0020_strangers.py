"""Who sent a refused webhook and what it claims, events that repeat a body, and what was purged unjudged.

Revision ID: 0020
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("quarantine", sa.Column("sender", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("quarantine", sa.Column("claims", sa.Text(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("quarantine", sa.Column("purged_us", sa.BigInteger(), nullable=True))
    op.add_column("event", sa.Column("repeated", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column(
        "source", sa.Column("quarantine_expired", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("source", sa.Column("quarantine_expired_us", sa.BigInteger(), nullable=True))
    op.create_table(
        "signed_message",
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("identities", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "digest", name="pk_signed_message"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("signed_message")
    op.drop_column("source", "quarantine_expired_us")
    op.drop_column("source", "quarantine_expired")
    op.drop_column("event", "repeated")
    op.drop_column("quarantine", "purged_us")
    op.drop_column("quarantine", "claims")
    op.drop_column("quarantine", "sender")
