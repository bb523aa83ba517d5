"""Answers for requests that fail before the engine has them: each failure is that of its request alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from r1plus_model_repo.backends.engine_loop import Meters, Reply
from r1plus_model_repo.backends.requests import RefusedError, SchemaMemoryFullError


@contextmanager
def answer_failures(reply: Reply, meters: Meters) -> Iterator[None]:
    """Answer and count any exception of the block. A tokenizer, a template or a reader may raise anything.

    An exception that left `execute` would leave its request without an answer, and its id among those that run.
    """
    try:
        yield
    except RefusedError as error:
        meters.count_request("refused")
        reply.refuse(str(error))
    except SchemaMemoryFullError as error:
        meters.count_request("schema_memory_full")
        reply.reject(str(error))
    except Exception as error:  # noqa: BLE001 - see above
        meters.count_request("error")
        reply.fail(f"the engine could not read the request: {type(error).__name__}: {error!s:.300}")
