"""Why a model did not answer.

ServingError
├── RefusedByEngineError   the request is invalid; the message is for the client
├── QueueFullError         the gateway's or the engine's queue is full: nothing was computed
│   └── SchemaMemoryFullError  the engine has no memory for a further schema of this caller
├── ModelUnavailableError  no pod answers
├── AnswerFailedError      the answer broke off, or the engine failed
└── CallerRevokedError     the caller's key was revoked while the request ran
"""


class ServingError(Exception):
    """Base of all; the message is safe to show to the client: no address, no text of a prompt."""


class RefusedByEngineError(ServingError):
    """The engine refuses the request; another try gets the same reply."""


class QueueFullError(ServingError):
    """A queue is full. Nothing was computed; try again later."""


class SchemaMemoryFullError(QueueFullError):
    """The engine compiles no further schema for this caller now. Nothing was computed; another pod may take it."""


class ModelUnavailableError(ServingError):
    """No pod took the request. Nothing was computed; try again later."""


class AnswerFailedError(ServingError):
    """The answer ended before its end, or the engine reported an error."""


class CallerRevokedError(ServingError):
    """The caller was revoked while its request ran."""

    def __init__(self) -> None:
        super().__init__("this request's key was revoked while it ran, so its answer ends here; use another key")
