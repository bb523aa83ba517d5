"""What each caller has stored in all, sizes that count rows as well, and indexes for what reads many of them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OWNER = ("caller_kind", "caller_id", "end_user")
INDEXES = {
    "ix_conversations_end_user": ("conversations", ["end_user"]),
    "ix_conversations_key_id": ("conversations", ["key_id"]),
    "ix_conversation_items_key_id": ("conversation_items", ["key_id"]),
    "ix_responses_end_user": ("responses", ["end_user"]),
    "ix_responses_key_id": ("responses", ["key_id"]),
    "ix_data_keys_end_user": ("data_keys", ["end_user"]),
    "ix_content_sizes_end_user": ("content_sizes", ["end_user"]),
}
IS_OWN = " AND ".join(f"{{table}}.{name} = content_sizes.{name}" for name in OWNER)
# 512 bytes for each row besides its ciphertext, and 1024 for each owner: `store.content.content`.
SIZES = f"""
UPDATE content_sizes SET bytes = 1024
  + coalesce((SELECT sum(length(c.attributes) + 512) FROM conversations c WHERE {IS_OWN.format(table="c")}), 0)
  + coalesce((SELECT sum(length(i.content) + 512) FROM conversation_items i
      JOIN conversations c ON c.id = i.conversation_id WHERE {IS_OWN.format(table="c")}), 0)
  + coalesce((SELECT sum(length(r.content) + 512) FROM responses r WHERE {IS_OWN.format(table="r")}), 0)
"""  # noqa: S608 - of constants


def upgrade() -> None:
    """Add the table and the indexes, and count again. The release before reads all of it, and counts less."""
    op.drop_index("ix_conversations_owner", "conversations")
    op.create_index("ix_conversations_owner", "conversations", [*OWNER, "created_at", "id"])
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)
    op.create_table(
        "content_totals",
        sa.Column("caller_kind", sa.Text(), nullable=False),
        sa.Column("caller_id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller_kind", "caller_id", name="pk_content_totals"),
    )
    op.execute(SIZES)
    op.execute("DELETE FROM content_sizes WHERE bytes <= 1024")
    op.execute(
        "INSERT INTO content_totals (caller_kind, caller_id, bytes)"
        " SELECT caller_kind, caller_id, sum(bytes) FROM content_sizes GROUP BY caller_kind, caller_id"
    )


def downgrade() -> None:
    """Drop what was added; sizes stay as they are."""
    op.drop_table("content_totals")
    for name, (table, _) in INDEXES.items():
        op.drop_index(name, table)
    op.drop_index("ix_conversations_owner", "conversations")
    op.create_index("ix_conversations_owner", "conversations", OWNER)
