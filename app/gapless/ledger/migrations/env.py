"""Runs the migrations on the connection that `ledger.migrate` put into the configuration."""

from alembic import context

from gapless.ledger.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, transaction_per_migration=False)
context.run_migrations()
