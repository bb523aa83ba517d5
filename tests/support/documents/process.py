"""The reader of documents as the container runs it."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from r1plus_contract.documents import ENV_SOCKET
from support.helper_process import running_helper


def running_reader_process(folder: Path) -> AbstractAsyncContextManager[Path]:
    """Run `python -m r1plus_documents` for the block; yield the path of its socket once it is healthy."""
    return running_helper(folder, "r1plus_documents", ENV_SOCKET)
