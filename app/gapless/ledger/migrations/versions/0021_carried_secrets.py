"""The key of the digests that stand in the place of secrets. Secrets that webhooks carried are deleted.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

PAYLOADS = """
UPDATE payload SET headers = NULL WHERE id IN (
    SELECT payload_id FROM event JOIN source ON source.id = event.source_id
    WHERE source.provider IN ('telegram', 'rest_list')
) OR id IN (
    SELECT part.envelope_id FROM payload AS part JOIN event ON event.payload_id = part.id
    JOIN source ON source.id = event.source_id WHERE source.provider IN ('telegram', 'rest_list')
)
"""
"""The kinds whose webhooks may carry a secret. Nothing reads the headers that they keep beside an event."""
REFUSED = """
UPDATE quarantine SET headers = '[]'
WHERE source_id IN (SELECT id FROM source WHERE provider IN ('telegram', 'rest_list'))
"""


def upgrade() -> None:
    op.add_column("source", sa.Column("digest_key", sa.Text(), nullable=True))
    op.execute(PAYLOADS)
    op.execute(REFUSED)


def downgrade() -> None:
    op.drop_column("source", "digest_key")
