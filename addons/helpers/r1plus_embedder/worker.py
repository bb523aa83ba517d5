"""The child process with the engine: `python -m r1plus_embedder.worker FOLDER IDENTITY DIMENSIONS TOKENS THREADS`.

Frames come on standard input, replies go to standard output; the first one, `READY`, says that the engine is loaded.
"""

import base64
import os
import resource
import sys
from pathlib import Path
from typing import Final

from r1plus_contract.embedder import (
    MOST_REQUEST_BYTES,
    MOST_TEXT_BYTES,
    MOST_TEXTS,
    EmbedderReply,
    EmbeddingFailure,
    EmbeddingFailureCode,
    EmbeddingRequest,
    TextEmbeddings,
)
from r1plus_contract.frames import pack, read_frame_from, write_to
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_embedder.engine import LoadedEngine, TextTooLongError
from r1plus_embedder.files import EngineFiles

READY: Final = b"R"


class EmbedderRequestError(ValueError):
    """A request that breaks the contract."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


def answer(engine: LoadedEngine, identity: str, payload: bytes) -> EmbedderReply:
    """Return the reply to a request."""
    try:
        request = loads(EmbeddingRequest, payload)
        _check(request)
        vectors = engine.embed(request.texts, truncate=request.truncate)
    except ContractError:
        # Without its words: they quote the text.
        return fail(
            EmbeddingFailureCode.INVALID_REQUEST, "the request is not understood; texts is a list of whole texts"
        )
    except EmbedderRequestError as error:
        return fail(EmbeddingFailureCode.INVALID_REQUEST, str(error), error.position)
    except TextTooLongError as error:
        return fail(EmbeddingFailureCode.TEXT_TOO_LONG, str(error), error.position)
    encoded = base64.b64encode(vectors.rows.astype("<f4", copy=False).tobytes()).decode()
    dimensions = vectors.rows.shape[1]
    return EmbedderReply(TextEmbeddings(identity, dimensions, encoded, vectors.tokens, vectors.truncated))


def fail(code: EmbeddingFailureCode, message: str, position: int | None = None) -> EmbedderReply:
    """Return the reply of a request without vectors."""
    return EmbedderReply(failure=EmbeddingFailure(code, message, position))


def _check(request: EmbeddingRequest) -> None:
    if not 1 <= len(request.texts) <= MOST_TEXTS:
        raise EmbedderRequestError(
            f"{len(request.texts)} texts are not between 1 and {MOST_TEXTS}; send several requests"
        )
    for position, text in enumerate(request.texts):
        if (size := len(text.encode())) > MOST_TEXT_BYTES:
            raise EmbedderRequestError(f"{size} bytes exceed {MOST_TEXT_BYTES}; split the text", position)


def run(files: EngineFiles, threads: int) -> None:
    """Load the engine, then answer until standard input ends."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what native code prints is no reply
    engine = LoadedEngine(files, threads)
    write_to(replies, pack(READY))
    while payload := read_frame_from(0, MOST_REQUEST_BYTES):
        write_to(replies, pack(dumps(answer(engine, files.identity, payload)).encode()))


def main() -> int:
    """Run the worker; return the exit status."""
    folder, identity, dimensions, tokens, threads = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold texts
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    run(EngineFiles(Path(folder), identity, int(dimensions), int(tokens)), int(threads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
