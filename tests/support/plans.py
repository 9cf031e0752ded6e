"""A ledger with a fair number of rows, and the plans by which a database reads it."""

from typing import Any

from sqlalchemy import event, text

NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
PAYLOADS = f"INSERT INTO payload (id, body, stored_us) {NUMBERS} SELECT i, 'x', i FROM n"
EVENTS = f"""INSERT INTO event
(seq, source_id, stream_id, key, type, occurred_us, first_seen_us, via, payload_id, missed_cause) {NUMBERS}
SELECT i, :source, :stream, 'e' || i, 't' || (i % 10), i, 1, 'webhook', i,
CASE WHEN i % 4000 = 1 THEN 'unexplained' END FROM n"""
MISSING = f"""INSERT INTO missing
(source_id, stream_id, key, type, occurred_us, found_us, reason, state, next_attempt_us) {NUMBERS}
SELECT :source, :stream, 'm' || i, 't', i, i, 'detail', CASE WHEN i % 500 = 1 THEN 'lost' ELSE 'recovered' END, i FROM n
WHERE i <= 5000"""
OWED = f"""INSERT INTO delivery (destination_id, event_seq, state, next_us, created_us, done_us, reason) {NUMBERS}
SELECT :destination, i, CASE WHEN i > :pending THEN 'pending' WHEN i > :dead THEN 'dead' ELSE 'delivered' END,
1, i, 5, CASE WHEN i > :pending THEN NULL ELSE 'timeout' END FROM n"""


async def fill(setup: Any, count: int = 40_000, *, dead: int = 300, pending: int = 20_000) -> None:
    """Fill the ledger: the last events are pending, and those before them dead; one in 4,000 was missed."""
    ids = {"source": setup.source.id, "stream": setup.stream_id, "destination": setup.destination_id}
    values = {**ids, "count": count, "pending": count - pending, "dead": count - pending - dead}

    def insert(connection: Any) -> int:
        body = PAYLOADS.replace("'x'", "'x'::bytea") if connection.dialect.name == "postgresql" else PAYLOADS
        connection.execute(text(body), values)
        connection.execute(text(EVENTS), values)
        connection.execute(text(OWED), values)
        connection.execute(text(MISSING), values)
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
        return 1

    await setup.writer.submit(insert)


async def plans(setup: Any, run: Any, *, reads: bool = False) -> list[str]:
    """Return those steps of the plans of what `run` executes that read a table or an index, as the database tells them.

    `reads`: in a reading transaction.
    """

    def explained(connection: Any) -> list[str]:
        executed: list[tuple[str, Any]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            executed.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        run(connection)
        event.remove(connection, "before_cursor_execute", note)
        prefix = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        steps = [connection.exec_driver_sql(prefix + statement, values).all() for statement, values in executed]
        return [str(step[-1]) for each in steps for step in each]

    lines: list[str] = await (setup.store.read if reads else setup.writer.submit)(explained)
    return [line.strip() for line in lines if any(word in line for word in ("Scan", "SCAN", "SEARCH"))]


def whole(steps: list[str], *tables: str) -> list[str]:
    """Return the steps that read all rows of a table, or all of an index of it."""
    words = [word for table in tables for word in (f"Seq Scan on {table} ", f"SCAN {table} ", f"SCAN {table}$")]
    return [step for step in steps if any(word in f"{step}$" for word in words)]
