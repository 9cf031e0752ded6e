"""Receipts of deliveries, order within an object, and what was released because it is proven.

Revision ID: 0026
Revises: 0025
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

COLUMNS = (
    ("answered_us", sa.BigInteger(), None),
    ("answers", sa.BigInteger(), "0"),
    ("applied_us", sa.BigInteger(), None),
    ("order_key", sa.BigInteger(), None),
    ("order_us", sa.BigInteger(), None),
    ("late", sa.Text(), None),
    ("unproven_id", sa.BigInteger(), None),
)
INDEXES = {
    "ix_delivery_order": (
        ["destination_id", "order_key", "order_us", "event_seq"],
        "order_key IS NOT NULL AND state <> 'delivered'",
    ),
    "ix_delivery_newest": (["destination_id", "order_key", "order_us"], "order_key IS NOT NULL AND late IS NULL"),
    "ix_delivery_answered": (["destination_id", "answered_us"], "state = 'pending' AND answers > 0"),
    "ix_delivery_unproven": (["destination_id", "unproven_id", "order_us", "event_seq"], "unproven_id IS NOT NULL"),
}


def upgrade() -> None:
    for name, kind, default in COLUMNS:
        server_default = None if default is None else sa.text(default)
        op.add_column("delivery", sa.Column(name, kind, nullable=default is None, server_default=server_default))
    for name, (columns, where) in INDEXES.items():
        op.create_index(name, "delivery", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    op.create_table(
        "released",
        sa.Column("destination_id", sa.BigInteger(), nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("up_to_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination_id", "source_id", name="pk_released"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.execute("UPDATE delivery SET state = 'pending' WHERE state = 'waiting'")  # earlier releases do not know it
    op.drop_table("released")
    for name in reversed(INDEXES):
        op.drop_index(name, "delivery")
    for name, _, _ in reversed(COLUMNS):
        op.drop_column("delivery", name)
