"""The tables after the newest migration. `migrations/` creates them, and a test compares the two.

Times are seconds since the epoch, in ledger time (`store.clock`). Months and days are those of UTC. End users are
pseudonyms. Text of prompts and answers is only in columns of type LargeBinary that name a `key_id` beside them:
encrypted under the data key of their owner (`store.keys.content_cipher`).
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_key",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints and indexes, so that later migrations can refer to them."""
metadata = MetaData(naming_convention=NAMING)
OWNER = ("caller_kind", "caller_id", "end_user")
"""Whose content a row is: the columns of `content_cipher.Owner`."""


def _make_text_column(name: str, *, is_key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=is_key, nullable=False)


def _make_count_column(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _make_owner_columns(*, are_keys: bool = False) -> tuple[Column[str], ...]:
    return tuple(_make_text_column(name, is_key=are_keys) for name in OWNER)


api_keys = Table(
    "api_keys",
    metadata,
    _make_text_column("id", is_key=True),
    _make_text_column("name"),
    Column("secret_mac", LargeBinary, nullable=False),
    Column("previous_mac", LargeBinary),
    Column("previous_expires_at", Double),
    Column("models", JSON(none_as_null=True)),
    Column("scopes", JSON, nullable=False),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("budget_tokens", BigInteger),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)

counters = Table(
    "counters",
    metadata,
    _make_text_column("caller_kind", is_key=True),
    _make_text_column("caller_id", is_key=True),
    Column("requests", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
"""What a caller used of its limits per minute; it leaks at the limit's rate."""

budgets = Table(
    "budgets",
    metadata,
    _make_text_column("caller_kind", is_key=True),
    _make_text_column("caller_id", is_key=True),
    _make_text_column("month", is_key=True),
    _make_count_column("used_tokens"),
)

reservations = Table(
    "reservations",
    metadata,
    _make_text_column("request_id", is_key=True),
    _make_text_column("caller_kind"),
    _make_text_column("caller_id"),
    _make_text_column("end_user"),
    _make_text_column("model"),
    _make_text_column("month"),
    _make_count_column("tokens"),
    Column("reserved_at", Double, nullable=False),
    _make_text_column("instance"),
    Index("ix_reservations_caller_kind_caller_id", "caller_kind", "caller_id"),
)
"""Requests that run: a row goes when its request is settled."""

usage = Table(
    "usage",
    metadata,
    _make_text_column("caller_kind", is_key=True),
    _make_text_column("caller_id", is_key=True),
    _make_text_column("model", is_key=True),
    _make_text_column("day", is_key=True),
    _make_text_column("end_user", is_key=True),
    _make_count_column("requests"),
    _make_count_column("prompt_tokens"),
    _make_count_column("completion_tokens"),
    _make_count_column("unsettled_tokens"),
)
"""`unsettled_tokens` are of requests whose gateway crashed and whose use no pod knows: all that they had reserved."""

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    _make_text_column("action"),
    _make_text_column("caller_kind"),
    _make_text_column("caller_id"),
    _make_text_column("end_user"),
    _make_text_column("subject"),
    _make_text_column("model"),
    _make_text_column("revision"),
    _make_text_column("engine_digest"),
    _make_text_column("verdict"),
    _make_count_column("prompt_tokens"),
    _make_count_column("completion_tokens"),
    _make_count_column("unsettled_tokens"),
    _make_text_column("outcome"),
    Column("key_version", Integer, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
"""One record per request and per action of an administrator; `subject` is the request's or the key's id."""

instances = Table(
    "instances",
    metadata,
    _make_text_column("id", is_key=True),
    Column("seen_at", Double, nullable=False),
    _make_count_column("beats"),
)
"""Gateways that use this database: reservations of one that is gone are settled by another."""


data_keys = Table(
    "data_keys",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_data_keys_owner", *OWNER),
    Index("ix_data_keys_end_user", "end_user"),
)
"""Of an owner's keys the newest encrypts; an older one decrypts until nothing needs it. Backups do not have them."""

conversations = Table(
    "conversations",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    _make_text_column("key_id"),
    Column("attributes", LargeBinary, nullable=False),
    Index("ix_conversations_owner", *OWNER, "created_at", "id"),
    Index("ix_conversations_end_user", "end_user"),
    Index("ix_conversations_key_id", "key_id"),
    Index("ix_conversations_used_at", "used_at"),
)
"""`attributes` is the API's `metadata`, as JSON. Retention counts from `used_at`."""

conversation_items = Table(
    "conversation_items",
    metadata,
    _make_text_column("id", is_key=True),
    _make_text_column("conversation_id"),
    _make_count_column("position"),
    Column("created_at", Double, nullable=False),
    _make_text_column("key_id"),
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("conversation_id", "position"),
    Index("ix_conversation_items_key_id", "key_id"),
)
"""What was said in a conversation, an item as JSON a row; an item's owner is its conversation's."""

responses = Table(
    "responses",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    _make_text_column("previous_id"),
    Column("created_at", Double, nullable=False),
    _make_text_column("key_id"),
    Column("content", LargeBinary, nullable=False),
    Index("ix_responses_owner", *OWNER),
    Index("ix_responses_end_user", "end_user"),
    Index("ix_responses_key_id", "key_id"),
    Index("ix_responses_created_at", "created_at"),
)
"""Stored responses, each with the items of its request, as JSON. `previous_id` is the response that it follows."""

memories = Table(
    "memories",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    _make_text_column("key_id"),
    Column("content", LargeBinary, nullable=False),
    Index("ix_memories_owner", *OWNER, "created_at", "id"),
    Index("ix_memories_end_user", "end_user"),
    Index("ix_memories_key_id", "key_id"),
    Index("ix_memories_expires_at", "expires_at"),
)
"""What is remembered of an owner across conversations: a text and where it comes from, as JSON."""

content_sizes = Table(
    "content_sizes",
    metadata,
    *_make_owner_columns(are_keys=True),
    _make_count_column("bytes"),
    Index("ix_content_sizes_end_user", "end_user"),
)
"""Bytes of content that each owner has stored, as limits count them. An owner without content has no row."""

content_totals = Table(
    "content_totals",
    metadata,
    _make_text_column("caller_kind", is_key=True),
    _make_text_column("caller_id", is_key=True),
    _make_count_column("bytes"),
)
"""The sum of `content_sizes` of each caller, with all its end users: a limit is checked without adding them all up."""

files = Table(
    "files",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    _make_text_column("state"),
    _make_count_column("bytes"),
    _make_text_column("key_id"),
    Column("attributes", LargeBinary, nullable=False),
    Column("purpose", Text),
    Index("ix_files_owner", *OWNER, "created_at", "id"),
    Index("ix_files_end_user", "end_user"),
    Index("ix_files_key_id", "key_id"),
    Index("ix_files_expires_at", "expires_at"),
    Index("ix_files_state", "state", "created_at"),
)
"""Uploaded files. `bytes` is the size as it was sent; `attributes` has the file's name, as JSON. `purpose`: empty of
files that an earlier release stored, whose `attributes` say it."""

file_parts = Table(
    "file_parts",
    metadata,
    _make_text_column("id", is_key=True),
    _make_text_column("file_id"),
    _make_count_column("position"),
    _make_text_column("key_id"),
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("file_id", "position"),
    Index("ix_file_parts_key_id", "key_id"),
)
"""What a file consists of, in parts, as a file comes: a whole one would hold up the writer."""

vector_stores = Table(
    "vector_stores",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    Column("expires_at", Double),
    _make_count_column("version"),
    _make_text_column("key_id"),
    Column("attributes", LargeBinary, nullable=False),
    Index("ix_vector_stores_owner", *OWNER, "created_at", "id"),
    Index("ix_vector_stores_end_user", "end_user"),
    Index("ix_vector_stores_key_id", "key_id"),
    Index("ix_vector_stores_expires_at", "expires_at"),
)
"""Sets of files that are searched. `version` grows with each change of what a search finds: indexes are of one."""

vector_store_files = Table(
    "vector_store_files",
    metadata,
    _make_text_column("id", is_key=True),
    _make_text_column("vector_store_id"),
    _make_text_column("file_id"),
    Column("created_at", Double, nullable=False),
    _make_text_column("state"),
    _make_count_column("chunks"),
    _make_text_column("key_id"),
    Column("content", LargeBinary, nullable=False),
    Column("batch_id", Text),
    UniqueConstraint("vector_store_id", "file_id"),
    Index("ix_vector_store_files_batch_id", "batch_id"),
    Index("ix_vector_store_files_file_id", "file_id"),
    Index("ix_vector_store_files_key_id", "key_id"),
    Index("ix_vector_store_files_state", "state"),
)
"""A file in a vector store, and how far it was read. Its owner is the vector store's, and that of the file. `batch_id`:
with which others it was added."""

chunk_batches = Table(
    "chunk_batches",
    metadata,
    _make_text_column("id", is_key=True),
    _make_text_column("vector_store_file_id"),
    _make_count_column("position"),
    _make_count_column("chunks"),
    _make_text_column("engine"),
    _make_text_column("key_id"),
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("vector_store_file_id", "position"),
    Index("ix_chunk_batches_key_id", "key_id"),
)
"""Consecutive chunks of a file with their vectors: a batch a row, as they are made and read. `engine` is the identity
of the embedder that made the vectors; empty: there are none."""

knowledge_sizes = Table(
    "knowledge_sizes",
    metadata,
    *_make_owner_columns(are_keys=True),
    _make_count_column("bytes"),
    _make_count_column("chunks"),
    Index("ix_knowledge_sizes_end_user", "end_user"),
)
"""Which part of `content_sizes` is of files and vector stores, and how many chunks there are."""

erasures = Table(
    "erasures",
    metadata,
    _make_text_column("id", is_key=True),
    *_make_owner_columns(),
    _make_text_column("requested_by"),
    Column("erased_at", Double, nullable=False),
    Column("seq", BigInteger),
    Column("finished_at", Double),
    Column("claimed_at", Double),
    *(
        _make_count_column(name)
        for name in ("conversations", "items", "responses", "memories", "files", "vector_stores", "chunks")
    ),
    Index("ix_erasures_owner", *OWNER),
    Index("ix_erasures_erased_at", "erased_at"),
    Index("ix_erasures_seq", "seq"),
    Index("ix_erasures_finished_at", "finished_at"),
)
"""Erasures of content: of an end user with every caller, or of a caller, whose `end_user` is empty. `seq` is that of
the audit record, which is written once all keys are destroyed: what began before it stores nothing of its owner any
more. `claimed_at`: when the receipt was made."""

erased_keys = Table(
    "erased_keys",
    metadata,
    _make_text_column("id", is_key=True),
    _make_text_column("erasure_id"),
    Index("ix_erased_keys_erasure_id", "erasure_id"),
)
"""Ids of the data keys that erasures have destroyed, for their receipts."""

meta = Table(
    "meta",
    metadata,
    _make_text_column("name", is_key=True),
    _make_text_column("value"),
)
"""Single values, by name: `MetaName`."""
