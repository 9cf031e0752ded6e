"""Attempts keep the answer, and are bounded for each delivery; jobs; what is owed is counted, and indexed by its use.

Revision ID: 0025
Revises: 0024
"""

# ruff: noqa: S608 - all that the statements are made of are constants of this file

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

WAITING = "state <> 'delivered' AND state <> 'pending'"
PARTIAL = (
    ("ix_delivery_oldest", "delivery", ["destination_id", "created_us"], "state = 'pending'"),
    ("ix_delivery_since", "delivery", ["destination_id", "state", "created_us"], WAITING),
    ("ix_delivery_waiting", "delivery", ["state", "event_seq", "destination_id"], WAITING),
    ("ix_delivery_trimmed", "delivery", ["destination_id", "event_seq"], "attempts_kept > 20"),
    ("ix_delivery_tried", "delivery", ["destination_id", "created_us"], "state = 'pending' AND attempts > 0"),
    ("ix_event_missed", "event", ["seq"], "missed_cause IS NOT NULL"),
    ("ix_event_unlisted", "event", ["seq"], "absent_count >= 2"),
    ("ix_job_running", "job", ["id"], "state = 'running'"),
    ("ix_missing_unrecovered", "missing", ["source_id"], "state IN ('open', 'lost')"),
)
COUNT_ALL = """INSERT INTO delivery_count (destination_id, state, reason, slot, count)
SELECT destination_id, state, coalesce(reason, ''), 0, count(*)
FROM delivery WHERE state <> 'delivered' GROUP BY 1, 2, 3"""
COLUMNS = "destination_id, state, reason, slot, count"
ADD = "ON CONFLICT (destination_id, state, reason, slot) DO UPDATE SET count = delivery_count.count + excluded.count"
SQLITE = (
    f"""CREATE TRIGGER delivery_count_insert AFTER INSERT ON delivery WHEN NEW.state <> 'delivered' BEGIN
    INSERT INTO delivery_count ({COLUMNS})
    VALUES (NEW.destination_id, NEW.state, coalesce(NEW.reason, ''), 0, 1) {ADD};
    END""",
    f"""CREATE TRIGGER delivery_count_delete AFTER DELETE ON delivery WHEN OLD.state <> 'delivered' BEGIN
    INSERT INTO delivery_count ({COLUMNS})
    VALUES (OLD.destination_id, OLD.state, coalesce(OLD.reason, ''), 0, -1) {ADD};
    END""",
    f"""CREATE TRIGGER delivery_count_update AFTER UPDATE OF state, reason ON delivery
    WHEN OLD.state <> NEW.state OR OLD.reason IS NOT NEW.reason BEGIN
    INSERT INTO delivery_count ({COLUMNS})
    SELECT OLD.destination_id, OLD.state, coalesce(OLD.reason, ''), 0, -1 WHERE OLD.state <> 'delivered' {ADD};
    INSERT INTO delivery_count ({COLUMNS})
    SELECT NEW.destination_id, NEW.state, coalesce(NEW.reason, ''), 0, 1 WHERE NEW.state <> 'delivered' {ADD};
    END""",
)
SLOT = "pg_backend_pid() % 64"
"""Two processes that count at the same moment rarely wait for each other."""
POSTGRES = (
    f"""CREATE FUNCTION delivery_count_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO delivery_count ({COLUMNS})
    SELECT destination_id, state, coalesce(reason, ''), {SLOT}, count(*) FROM made WHERE state <> 'delivered'
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 {ADD}; RETURN NULL; END $$""",
    f"""CREATE FUNCTION delivery_count_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO delivery_count ({COLUMNS})
    SELECT destination_id, state, coalesce(reason, ''), {SLOT}, -count(*) FROM gone WHERE state <> 'delivered'
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 {ADD}; RETURN NULL; END $$""",
    f"""CREATE FUNCTION delivery_count_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO delivery_count ({COLUMNS}) SELECT destination_id, state, reason, {SLOT}, sum(n) FROM (
        SELECT destination_id, state, coalesce(reason, '') AS reason, -1 AS n FROM gone WHERE state <> 'delivered'
        UNION ALL
        SELECT destination_id, state, coalesce(reason, ''), 1 FROM made WHERE state <> 'delivered'
    ) AS changed GROUP BY 1, 2, 3 HAVING sum(n) <> 0 ORDER BY 1, 2, 3 {ADD}; RETURN NULL; END $$""",
    """CREATE TRIGGER delivery_count_insert AFTER INSERT ON delivery REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION delivery_count_insert()""",
    """CREATE TRIGGER delivery_count_delete AFTER DELETE ON delivery REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION delivery_count_delete()""",
    """CREATE TRIGGER delivery_count_update AFTER UPDATE ON delivery REFERENCING OLD TABLE AS gone NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION delivery_count_update()""",
)
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("attempt", sa.Column("status", sa.BigInteger(), nullable=True))
    op.add_column("attempt", sa.Column("answer", sa.Text(), nullable=True))
    op.add_column("delivery", sa.Column("attempts_kept", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "job",
        sa.Column("id", WHOLE, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("destination", sa.Text(), nullable=True),
        sa.Column("cursor_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor_destination", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("left_out", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pace_us", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sqlite_autoincrement=True,
    )
    _keep_counts()
    _index_what_is_looked_for()


def _index_what_is_looked_for() -> None:
    """Make indexes for what was found by looking at everything that is owed, or at every event."""
    op.drop_index("ix_delivery_owing", "delivery")
    for name, table, columns, where in PARTIAL:
        condition = sa.text(where)
        op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
    op.create_index("ix_event_payload", "event", ["payload_id"])


def _keep_counts() -> None:
    """Make the table of counts, let the database keep it, and count what there is.

    Triggers, and not the statements that change deliveries: these are many, and a process of the release before this
    one may be running beside this one. A later migration that copies `delivery` must make the triggers again.
    """
    op.create_table(
        "delivery_count",
        sa.Column("destination_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination_id", "state", "reason", "slot", name="pk_delivery_count"),
    )
    for statement in POSTGRES if op.get_bind().dialect.name == "postgresql" else SQLITE:
        op.execute(sa.text(statement))
    op.execute(sa.text(COUNT_ALL))


def downgrade() -> None:
    op.drop_index("ix_event_payload", "event")
    for name, table, _, _ in reversed(PARTIAL):
        op.drop_index(name, table)
    owing = sa.text("state <> 'delivered'")
    op.create_index("ix_delivery_owing", "delivery", ["event_seq"], sqlite_where=owing, postgresql_where=owing)
    is_postgres = op.get_bind().dialect.name == "postgresql"
    for name in ("insert", "delete", "update"):
        op.execute(sa.text(f"DROP TRIGGER delivery_count_{name}{' ON delivery' if is_postgres else ''}"))
        if is_postgres:
            op.execute(sa.text(f"DROP FUNCTION delivery_count_{name}"))
    op.drop_table("delivery_count")
    op.drop_table("job")
    op.drop_column("delivery", "attempts_kept")
    op.drop_column("attempt", "answer")
    op.drop_column("attempt", "status")
