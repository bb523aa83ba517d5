"""Stored content for tests: what callers say, and access to it as a caller has it."""

from typing import Any

from r1plus_gateway.store.content import ContentLimits
from r1plus_gateway.store.tenant import TenantStore
from r1plus_gateway.store.tenant_content import TenantContent

MIB = 2**20
LIMITS = ContentLimits(caller_bytes=MIB, tenant_bytes=2 * MIB)


def say(text: str, role: str = "user") -> dict[str, Any]:
    """Return an item of a conversation."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def make_content(store: TenantStore, limits: ContentLimits = LIMITS) -> TenantContent:
    """Return the content of all callers of a store."""
    return TenantContent(store, lambda: limits)
