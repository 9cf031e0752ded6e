"""Alembic's scripts. They run through `ledger.migrate` only, on a connection that it provides."""
