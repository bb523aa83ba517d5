"""What a caller may store of the tenant's knowledge: never all that is left, so each other caller finds room.

A caller's share is its limit times the part of the tenant's limit that others leave. With a limit of half, one caller
has half, two have a third each, and n callers an (n + 1)-th each: as much is free for the next one. These are the
dynamic thresholds of shared buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6 (2), 1998).

An end user that a key names has half of the key's chunks and bytes that the key's others leave.
"""

from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content import ContentLimitError, ContentLimits
from r1plus_gateway.store.content.content_books import read_caller_bytes, read_stored_bytes
from r1plus_gateway.store.content.knowledge_books import (
    count_owner_chunks,
    count_tenant_chunks,
    read_caller_knowledge,
    read_owner_bytes,
)
from r1plus_gateway.store.keys.content_cipher import Owner


def compute_share(caller_limit: int, tenant_limit: int, others: int) -> int:
    """Return what a caller may have while all others have `others`, in the same unit."""
    return caller_limit * max(0, tenant_limit - others) // tenant_limit


def compute_user_share(share: int, others: int) -> int:
    """Return what an end user may have of its key's share while the key and its other end users have `others`."""
    return max(0, share - others) // 2


def require_chunks(connection: Connection, owner: Owner, limits: ContentLimits, count: int) -> None:
    """Raise ContentLimitError unless an owner may store so many chunks more."""
    own, used = read_caller_knowledge(connection, owner).chunks, count_tenant_chunks(connection)
    if own + count > limits.caller_chunks:
        raise ContentLimitError(
            f"{count} chunks more exceed the {limits.caller_chunks} that this key may have, of which {own} are in"
            " use; delete files from vector stores, choose larger chunks, use another key, or ask the platform team"
        )
    if used + count > limits.tenant_chunks:
        raise ContentLimitError(
            f"{count} chunks more exceed the {limits.tenant_chunks} that all of the tenant may have; delete"
            " files from vector stores, choose larger chunks, or ask the platform team"
        )
    share = compute_share(limits.caller_chunks, limits.tenant_chunks, used - own)
    if own + count > share:
        raise ContentLimitError(
            f"{count} chunks more exceed this key's share of the tenant's {limits.tenant_chunks}, of which it has"
            f" {own}: what is left is for other keys; delete files from vector stores, choose larger chunks, or ask the"
            " platform team"
        )
    if not owner.end_user:
        return
    of_user = count_owner_chunks(connection, owner)
    if of_user + count > compute_user_share(share, own - of_user):
        raise ContentLimitError(
            f"{count} chunks more exceed this end user's share of what its key may have, of which it has {of_user}:"
            " what is left is for the key and its other end users; delete files from vector stores, choose larger"
            " chunks, or ask the platform team"
        )


def require_bytes(connection: Connection, owner: Owner, limits: ContentLimits, size: int, *, is_progress: bool) -> None:
    """Raise ContentLimitError unless an owner may store so many bytes more.

    Progress, as of how far a file was read, may exceed the share: what others store ends nothing that was begun. What a
    caller puts in place of something else may not.
    """
    own, used = read_caller_knowledge(connection, owner).bytes, read_stored_bytes(connection)
    if own + size > limits.knowledge_caller_bytes:
        raise ContentLimitError(
            f"{size} bytes more exceed the {limits.knowledge_caller_bytes} of files and vector stores that this key"
            f" may have, of which {own} are in use; delete files and vector stores"
        )
    if used + size > limits.tenant_bytes:
        raise ContentLimitError(
            f"{size} bytes more exceed what is left of the {limits.tenant_bytes} that all of the tenant may"
            " store; delete files and vector stores, or ask the platform team"
        )
    others = used - read_caller_bytes(connection, owner)
    share = compute_share(limits.knowledge_caller_bytes, limits.tenant_bytes, others)
    if not is_progress and own + size > share:
        raise ContentLimitError(
            f"{size} bytes more exceed this key's share of the tenant's {limits.tenant_bytes}, of which its files and"
            f" vector stores have {own}: what is left is for other keys; delete files and vector stores, or ask the"
            " platform team"
        )
    of_user = read_owner_bytes(connection, owner)
    if not is_progress and owner.end_user and of_user + size > compute_user_share(share, own - of_user):
        raise ContentLimitError(
            f"{size} bytes more exceed this end user's share of what its key may have, of which its files and vector"
            f" stores have {of_user}: what is left is for the key and its other end users; delete files and vector"
            " stores, or ask the platform team"
        )
