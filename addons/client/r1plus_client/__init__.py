"""The Python client of the r1plus gateway: generate, chat and streams, sync and async.

from r1plus_client import Client

client = Client("https://gateway.team-credit.svc", api_key="r1p_...")
print(client.generate(model="credit", prompt="What is the capital of Sweden?", max_new_tokens=20).text)
"""

from r1plus_client.async_client import AsyncClient
from r1plus_client.client import Client
from r1plus_client.errors import (
    APIError,
    AuthenticationError,
    BudgetExhaustedError,
    GatewayConnectionError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    R1PlusError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from r1plus_client.stored_types import (
    Citation,
    Conversation,
    ConversationItem,
    File,
    FileBatch,
    Memory,
    Response,
    SearchHit,
    VectorStore,
    VectorStoreFile,
)
from r1plus_client.types import ChatCompletion, Evidence, Generation, MathReport, Message, Model, Usage

__all__ = [
    "APIError",
    "AsyncClient",
    "AuthenticationError",
    "BudgetExhaustedError",
    "ChatCompletion",
    "Citation",
    "Client",
    "Conversation",
    "ConversationItem",
    "Evidence",
    "File",
    "FileBatch",
    "GatewayConnectionError",
    "Generation",
    "InvalidRequestError",
    "MathReport",
    "Memory",
    "Message",
    "Model",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "R1PlusError",
    "RateLimitError",
    "Response",
    "SearchHit",
    "ServerError",
    "StreamInterruptedError",
    "Usage",
    "VectorStore",
    "VectorStoreFile",
    "credit",
]
