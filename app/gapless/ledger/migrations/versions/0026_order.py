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
    "ix_delivery_answered": (["destination_id", "answered_us", "answers"], "state = 'pending' AND answers > 0"),
    "ix_delivery_queued": (["destination_id", "created_us"], "state = 'waiting'"),
    "ix_delivery_unproven": (["destination_id", "unproven_id", "order_us", "event_seq"], "unproven_id IS NOT NULL"),
}
WAS = "state <> 'delivered' AND state <> 'pending'"
UNSETTLED = f"{WAS} AND state <> 'waiting'"
TRIED = "state = 'pending' AND attempts > 0"
OF_PEOPLE = ["state", "event_seq", "destination_id"]
SINCE = ["destination_id", "state", "created_us"]
BEFORE = {
    "ix_delivery_since": (SINCE, WAS),
    "ix_delivery_tried": (["destination_id", "created_us"], TRIED),
    "ix_delivery_waiting": (OF_PEOPLE, WAS),
}
"""Indexes of 0025. What waits for its turn would be in two of them, though it waits for no person."""
AFTER = {
    "ix_delivery_since": (SINCE, UNSETTLED),
    "ix_delivery_tried": (["destination_id", "created_us"], f"{TRIED} AND answers = 0"),
    "ix_delivery_unsettled": (OF_PEOPLE, UNSETTLED),
}


def upgrade() -> None:
    for name, kind, default in COLUMNS:
        server_default = None if default is None else sa.text(default)
        op.add_column("delivery", sa.Column(name, kind, nullable=default is None, server_default=server_default))
    _make(INDEXES)
    _drop(BEFORE)
    _make(AFTER)
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
    _drop(AFTER)
    _drop(INDEXES)
    for name, _, _ in reversed(COLUMNS):
        op.drop_column("delivery", name)
    _make(BEFORE)


def _make(indexes: dict[str, tuple[list[str], str]]) -> None:
    for name, (columns, where) in indexes.items():
        op.create_index(name, "delivery", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _drop(indexes: dict[str, tuple[list[str], str]]) -> None:
    for name in reversed(indexes):
        op.drop_index(name, "delivery")
