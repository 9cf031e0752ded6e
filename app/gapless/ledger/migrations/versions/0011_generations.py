"""Whose events they are: accounts, modes, the version of our endpoint, and the generation of the configuration.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("source", sa.Column("account_us", sa.BigInteger(), nullable=True))
    op.add_column("source", sa.Column("other_account", sa.Text(), nullable=True))
    op.add_column("source", sa.Column("livemode", sa.Boolean(), nullable=True))
    op.add_column("source", sa.Column("endpoint_version", sa.Text(), nullable=True))
    op.add_column("event", sa.Column("livemode", sa.Boolean(), nullable=True))
    op.add_column("tally", sa.Column("other_mode", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("slot", sa.Column("generation", sa.BigInteger(), nullable=True))
    op.add_column("slot", sa.Column("withheld", sa.Text(), nullable=True))
    op.create_table(
        "configuration",
        sa.Column(
            "generation", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("generation", name="pk_configuration"),
        sa.UniqueConstraint("digest", name="uq_configuration_digest"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("configuration")
    op.drop_column("slot", "withheld")
    op.drop_column("slot", "generation")
    op.drop_column("tally", "other_mode")
    op.drop_column("event", "livemode")
    op.drop_column("source", "endpoint_version")
    op.drop_column("source", "livemode")
    op.drop_column("source", "other_account")
    op.drop_column("source", "account_us")
