"""The assistant with the helpers that the environment of a gateway's process names by their sockets."""

import os

from r1plus_assistant.assistant import Assistant, build_assistant
from r1plus_assistant.calculation.client import Calculator, SocketCalculator
from r1plus_assistant.embedding.client import Embedder, SocketEmbedder
from r1plus_assistant.knowledge.documents import DocumentReader, SocketDocumentReader
from r1plus_contract import calculator, documents, embedder
from r1plus_contract.gateway import ENV_CODE_INTERPRETER, ENV_HELPER_START_SECONDS


def read_assistant() -> Assistant:
    """Return the assistant."""
    return build_assistant(_find_calculator(), _find_documents(), _find_embedder())


def _find_calculator() -> Calculator | None:
    """Return the calculator beside this gateway, if its socket is named."""
    path = os.environ.get(calculator.ENV_SOCKET, "")
    runs_code = os.environ.get(ENV_CODE_INTERPRETER, "") == "true"
    return SocketCalculator(path, start_seconds=_read_start_seconds(), runs_code=runs_code) if path else None


def _find_documents() -> DocumentReader | None:
    """Return the reader of documents beside this gateway, if its socket is named."""
    path = os.environ.get(documents.ENV_SOCKET, "")
    return SocketDocumentReader(path) if path else None


def _find_embedder() -> Embedder | None:
    """Return the embedder beside this gateway, if its socket is named."""
    path = os.environ.get(embedder.ENV_SOCKET, "")
    return SocketEmbedder(path, start_seconds=_read_start_seconds()) if path else None


def _read_start_seconds() -> float:
    return float(os.environ.get(ENV_HELPER_START_SECONDS) or 0)
