"""Errors of reading. Messages go on behind the file's name, and end with the remedy."""

from r1plus_contract.documents import DocumentFailureCode


class ReadingError(Exception):
    """A document that cannot be read."""

    def __init__(self, code: DocumentFailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TimeLimitError(BaseException):
    """The processor time of one document is over. No library's `except Exception` catches it."""


def refuse_damaged(kind: str) -> ReadingError:
    """Return the refusal of a document that its library cannot read."""
    message = f"is damaged, or no {kind} at all; open it with another program and save it again"
    return ReadingError(DocumentFailureCode.DAMAGED, message)
