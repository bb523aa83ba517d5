"""Files and vector stores: what callers upload, and the chunks that are searched."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OWNER = ("caller_kind", "caller_id", "end_user")
INDEXES = {
    "ix_files_owner": ("files", [*OWNER, "created_at", "id"]),
    "ix_files_end_user": ("files", ["end_user"]),
    "ix_files_key_id": ("files", ["key_id"]),
    "ix_files_expires_at": ("files", ["expires_at"]),
    "ix_files_state": ("files", ["state", "created_at"]),
    "ix_file_parts_key_id": ("file_parts", ["key_id"]),
    "ix_vector_stores_owner": ("vector_stores", [*OWNER, "created_at", "id"]),
    "ix_vector_stores_end_user": ("vector_stores", ["end_user"]),
    "ix_vector_stores_key_id": ("vector_stores", ["key_id"]),
    "ix_vector_stores_expires_at": ("vector_stores", ["expires_at"]),
    "ix_vector_store_files_file_id": ("vector_store_files", ["file_id"]),
    "ix_vector_store_files_key_id": ("vector_store_files", ["key_id"]),
    "ix_vector_store_files_state": ("vector_store_files", ["state"]),
    "ix_chunk_batches_key_id": ("chunk_batches", ["key_id"]),
    "ix_knowledge_sizes_end_user": ("knowledge_sizes", ["end_user"]),
}


def _make_texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _make_counts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _make_time(name: str, *, is_optional: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=is_optional)


def _make_bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def upgrade() -> None:
    """Create the tables. The release before knows nothing of them, and changes none of its own."""
    op.create_table(
        "files",
        *_make_texts("id", *OWNER),
        _make_time("created_at"),
        _make_time("expires_at", is_optional=True),
        *_make_texts("state"),
        *_make_counts("bytes"),
        *_make_texts("key_id"),
        _make_bytes("attributes"),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_table(
        "file_parts",
        *_make_texts("id", "file_id"),
        *_make_counts("position"),
        *_make_texts("key_id"),
        _make_bytes("content"),
        sa.PrimaryKeyConstraint("id", name="pk_file_parts"),
        sa.UniqueConstraint("file_id", "position", name="uq_file_parts_key"),
    )
    op.create_table(
        "vector_stores",
        *_make_texts("id", *OWNER),
        _make_time("created_at"),
        _make_time("used_at"),
        _make_time("expires_at", is_optional=True),
        *_make_counts("version"),
        *_make_texts("key_id"),
        _make_bytes("attributes"),
        sa.PrimaryKeyConstraint("id", name="pk_vector_stores"),
    )
    op.create_table(
        "vector_store_files",
        *_make_texts("id", "vector_store_id", "file_id"),
        _make_time("created_at"),
        *_make_texts("state"),
        *_make_counts("chunks"),
        *_make_texts("key_id"),
        _make_bytes("content"),
        sa.PrimaryKeyConstraint("id", name="pk_vector_store_files"),
        sa.UniqueConstraint("vector_store_id", "file_id", name="uq_vector_store_files_key"),
    )
    op.create_table(
        "chunk_batches",
        *_make_texts("id", "vector_store_file_id"),
        *_make_counts("position", "chunks"),
        *_make_texts("engine", "key_id"),
        _make_bytes("content"),
        sa.PrimaryKeyConstraint("id", name="pk_chunk_batches"),
        sa.UniqueConstraint("vector_store_file_id", "position", name="uq_chunk_batches_key"),
    )
    op.create_table(
        "knowledge_sizes",
        *_make_texts(*OWNER),
        *_make_counts("bytes", "chunks"),
        sa.PrimaryKeyConstraint(*OWNER, name="pk_knowledge_sizes"),
    )
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)


def downgrade() -> None:
    """Drop the knowledge. What it cost stays in the books of content until its owner's content is erased."""
    tables = ("knowledge_sizes", "chunk_batches", "vector_store_files", "vector_stores", "file_parts", "files")
    for table in tables:
        op.drop_table(table)
