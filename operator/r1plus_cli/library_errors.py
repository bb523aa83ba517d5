"""Errors of the libraries behind `r1plus engine`, which are optional and imported when a verb runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from r1plus_cli.errors import CliError


@contextmanager
def translate_errors(
    purpose: str, extra: str, outcome: str, explain: Callable[[RuntimeError], str | None]
) -> Iterator[None]:
    """Translate what goes wrong in the block to CliError.

    Args:
        purpose: what needs the library, as the subject of a sentence.
        extra: the extra that installs it.
        outcome: what an error of a file leaves.
        explain: returns the message for an error of the library, or None for any other error, which passes.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed, and {purpose} needs it; in a clone: pip install '.[cli,{extra}]'"
        ) from error
    except OSError as error:
        raise CliError(f"{error.filename or 'A file'}: {error.strerror or error}; {outcome}") from error
    except RuntimeError as error:
        if (message := explain(error)) is None:
            raise
        raise CliError(message) from error
