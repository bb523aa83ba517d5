"""Content of conversations and responses, and the data keys that it is encrypted with."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OWNER = ("caller_kind", "caller_id", "end_user")


def _make_owner_columns() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in OWNER]


def upgrade() -> None:
    """Create the tables; those of the release before stay as they are."""
    op.create_table(
        "data_keys",
        sa.Column("id", sa.Text(), nullable=False),
        *_make_owner_columns(),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_data_keys"),
    )
    op.create_index("ix_data_keys_owner", "data_keys", OWNER)
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text(), nullable=False),
        *_make_owner_columns(),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("attributes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_owner", "conversations", OWNER)
    op.create_index("ix_conversations_used_at", "conversations", ["used_at"])
    op.create_table(
        "conversation_items",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversation_items"),
        sa.UniqueConstraint("conversation_id", "position", name="uq_conversation_items_key"),
    )
    op.create_table(
        "responses",
        sa.Column("id", sa.Text(), nullable=False),
        *_make_owner_columns(),
        sa.Column("previous_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
    )
    op.create_index("ix_responses_owner", "responses", OWNER)
    op.create_index("ix_responses_created_at", "responses", ["created_at"])
    op.create_table(
        "content_sizes",
        *_make_owner_columns(),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*OWNER, name="pk_content_sizes"),
    )


def downgrade() -> None:
    """Drop the content."""
    for table in ("content_sizes", "responses", "conversation_items", "conversations", "data_keys"):
        op.drop_table(table)
