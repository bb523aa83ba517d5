"""Erasures that go in parts: whose content, how far each has come, and which keys it has destroyed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
_COUNTS = ("conversations", "items", "responses", "memories", "files", "vector_stores", "chunks")


def upgrade() -> None:
    """Add the tables. The release before erases in one transaction, and records it nowhere but in the audit log.

    It shows what an erasure of this release has hidden and not yet deleted as unreadable.
    """
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("caller_kind", sa.Text(), nullable=False),
        sa.Column("caller_id", sa.Text(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("erased_at", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    )
    op.create_index("ix_erasures_owner", "erasures", ["caller_kind", "caller_id", "end_user"])
    for column in ("erased_at", "seq", "finished_at"):
        op.create_index(f"ix_erasures_{column}", "erasures", [column])
    op.create_table(
        "erased_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("erasure_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erased_keys"),
    )
    op.create_index("ix_erased_keys_erasure_id", "erased_keys", ["erasure_id"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("erased_keys")
    op.drop_table("erasures")
