"""Payloads that are sealed with a key, the keys by id and fingerprint, and events whose content was erased.

Revision ID: 0028
Revises: 0026
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0026"
branch_labels = None
depends_on = None

TABLES = ("payload", "quarantine", "missing")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("sealed_by", sa.Text(), nullable=True))
        where = sa.text("sealed_by IS NOT NULL")
        op.create_index(f"ix_{table}_sealed_by", table, ["sealed_by"], sqlite_where=where, postgresql_where=where)
    op.add_column("payload", sa.Column("size", sa.BigInteger(), nullable=True))
    op.add_column("event", sa.Column("erased_us", sa.BigInteger(), nullable=True))
    op.create_table(
        "encryption_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_encryption_key"),
    )


def downgrade() -> None:
    for table in TABLES:
        if op.get_bind().execute(sa.text(f"SELECT 1 FROM {table} WHERE sealed_by IS NOT NULL LIMIT 1")).first():  # noqa: S608 - ours
            raise RuntimeError(f"the ledger has sealed rows in {table}, which an earlier schema takes for clear ones")
    op.drop_table("encryption_key")
    op.drop_column("event", "erased_us")
    op.drop_column("payload", "size")
    for table in TABLES:
        op.drop_index(f"ix_{table}_sealed_by", table)
        op.drop_column(table, "sealed_by")
