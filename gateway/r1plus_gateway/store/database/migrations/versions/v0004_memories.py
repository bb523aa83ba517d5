"""What is remembered of an owner across conversations."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table. The release before neither reads it nor deletes from it.

    Its rotation of data keys does not see the rows either, and may destroy their keys; its erasure leaves them. So none
    of the two may run while replicas of both releases do: docs/upgrades.md says so.
    """
    op.create_table(
        "memories",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("caller_kind", sa.Text(), nullable=False),
        sa.Column("caller_id", sa.Text(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memories"),
    )
    op.create_index("ix_memories_owner", "memories", ["caller_kind", "caller_id", "end_user", "created_at", "id"])
    for column in ("end_user", "key_id", "expires_at"):
        op.create_index(f"ix_memories_{column}", "memories", [column])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("memories")
