"""Batches of files that are added to a vector store together; and the purpose of a file in the clear, to list by."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. The release before leaves them empty: what it adds is of no batch, and decrypted for a list."""
    op.add_column("files", sa.Column("purpose", sa.Text(), nullable=True))
    op.add_column("vector_store_files", sa.Column("batch_id", sa.Text(), nullable=True))
    op.create_index("ix_vector_store_files_batch_id", "vector_store_files", ["batch_id"])


def downgrade() -> None:
    """Drop them: the files stay."""
    op.drop_column("files", "purpose")
    op.drop_index("ix_vector_store_files_batch_id", "vector_store_files")
    op.drop_column("vector_store_files", "batch_id")
